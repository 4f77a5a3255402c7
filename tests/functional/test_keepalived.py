"""The keepalived module and state under Salt's own loader, with the real ``keepalived -t``."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import salt.client
from salt.exceptions import CommandExecutionError, SaltInvocationError
from saltext.lvs import rtnetlink

from tests.functional.conftest import CHECKOUT, Minion, MinionMaker, example

STARS = "**********"
PASSWORD = "MY_PASS"
# keepalived accepts no instance on a card that is not there: the example's becomes one of ours.
CARD = next((link for link in rtnetlink.read_all() if link.addresses and not link.loopback), None)
GOLDEN = (CHECKOUT / "tests/golden/production/lb1.conf").read_text(encoding="utf-8")
if CARD:
    GOLDEN = GOLDEN.replace(" eth0", f" {CARD.name}")
SHOWN = GOLDEN.replace(f'"{PASSWORD}"', STARS)
BROKEN = "# {{ director.minion_id }}\nvrrp_instance x {\n    interface nope0\n}\n"


@pytest.fixture(autouse=True)
def machine() -> None:
    """What these tests need of it."""
    if not shutil.which("keepalived", path="/usr/local/sbin:/usr/sbin:/sbin"):
        pytest.skip("keepalived is not installed")
    if not CARD:
        pytest.skip("no network card but the loopback")


@pytest.fixture(autouse=True)
def pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where the pipes and the files of weights are: not this machine's own places."""
    from saltext.lvs import applying, fifos, running, trackfiles, wishes

    paths = [tmp_path / "state" / name for name in ("vrrp.fifo", "lvs.fifo")]
    monkeypatch.setattr(fifos, "PATHS", tuple(map(str, paths)))
    monkeypatch.setattr(trackfiles, "FOLDER", str(tmp_path / "state" / "weights"))
    monkeypatch.setattr(wishes, "WISHES", str(tmp_path / "state" / "wishes.json"))
    monkeypatch.setattr(applying, "LOCK", str(tmp_path / "lock"))
    monkeypatch.setattr(applying, "RECORD", str(tmp_path / "record"))
    monkeypatch.setattr(running, "PID_FILE", str(tmp_path / "keepalived.pid"))
    return paths


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """Where the configuration goes; the folder is there, as the package makes it."""
    folder = tmp_path / "keepalived"
    folder.mkdir()
    return folder / "keepalived.conf"


@pytest.fixture
def pillar() -> dict[str, Any]:
    """The production example, with a card of this machine."""
    found = example("production")
    if CARD:
        found["lvs"]["vrrp_instances"]["VirtIP_10"]["interface"] = CARD.name
        found["lvs"]["sync_daemon"]["interface"] = CARD.name
    return found


@pytest.fixture
def lb1(minion: MinionMaker, pillar: dict[str, Any]) -> Minion:
    """The first director."""
    return minion("lb1", pillar)


@pytest.fixture
def broken(minion: MinionMaker, pillar: dict[str, Any], tmp_path: Path) -> Minion:
    """A director whose own template renders what keepalived refuses."""
    template = tmp_path / "broken.jinja"
    template.write_text(BROKEN, encoding="utf-8")
    pillar["lvs"]["keepalived"] = {"template": str(template)}
    return minion("lb2", pillar)


def added(text: str, conf: Path) -> str:
    """The diff for a file that was not there."""
    lines = text.splitlines(keepends=True)
    head = f"--- {conf}\n+++ {conf}\n@@ -0,0 +1,{len(lines)} @@\n"
    return head + "".join(f"+{line}" for line in lines)


def access(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


def written(path: Path) -> tuple[int, int, int]:
    """What tells whether a file was written to, or replaced, since."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns


# --------------------------------------------------------------------------------------------------
# Module


def test_a_configuration_is_rendered_with_stars_for_passwords(lb1: Minion) -> None:
    assert lb1.call("keepalived.render") == SHOWN


def test_a_minion_that_is_no_director_has_no_configuration(minion: MinionMaker) -> None:
    with pytest.raises(CommandExecutionError, match="rs1 is no director of cluster prod"):
        minion("rs1").call("keepalived.render")


def test_a_wrong_pillar_is_named_with_its_path(minion: MinionMaker, pillar: dict[str, Any]) -> None:
    pillar["lvs_secrets"]["vrrp_instances"]["VirtIP_10"]["auth_pass"] = "nine_char"
    with pytest.raises(SaltInvocationError, match="auth_pass is [*]{10}; it should be") as caught:
        minion("lb1", pillar).call("keepalived.plan_config")
    assert "nine_char" not in str(caught.value)


def test_a_template_that_nobody_serves_is_named(lb1: Minion) -> None:
    with pytest.raises(
        CommandExecutionError,
        match="^salt://no.jinja is not in the file roots of environment base$",
    ):
        lb1.call("keepalived.render", template="salt://no.jinja")


def test_a_template_of_ones_own_is_given_what_salt_gives(
    minion: MinionMaker, pillar: dict[str, Any], tmp_path: Path
) -> None:
    template = tmp_path / "own.jinja"
    template.write_text(
        "{{ grains['kernel'] }} {{ opts['id'] }} {{ salt['test.echo']('x') }} {{ cluster.name }}\n"
    )
    pillar["lvs"]["keepalived"] = {"template": str(template)}
    assert minion("lb1", pillar).call("keepalived.render") == "Linux lb1 x prod\n"


def test_a_template_that_fails_is_named_with_its_line_and_without_passwords(
    lb1: Minion, tmp_path: Path
) -> None:
    template = tmp_path / "own.jinja"
    template.write_text("\n{{ grains[cluster.vrrp_instances.VirtIP_10.auth_pass].x }}\n")
    with pytest.raises(CommandExecutionError) as caught:
        lb1.call("keepalived.render", template=str(template))
    assert str(caught.value) == f"{template}, line 2: {STARS}"


def test_a_file_is_checked_written_and_then_right(lb1: Minion, conf: Path) -> None:
    change = {"changes": {"diff": added(SHOWN, conf)}, "problems": [], "checked": True}
    assert lb1.call("keepalived.write_config", str(conf)) == change
    assert (conf.read_text(), access(conf)) == (GOLDEN, "0600")
    nothing = {"changes": {}, "problems": [], "checked": True}
    assert lb1.call("keepalived.write_config", str(conf)) == nothing
    assert lb1.call("keepalived.check_config", str(conf)) == []


def test_all_is_planned_applied_and_then_right(lb1: Minion, conf: Path, pipes: list[Path]) -> None:
    nothing = {
        "changes": {},
        "problems": [],
        "checked": True,
        "restart": [],
        "failures": [],
        "notes": [],
    }
    made = {str(path): {"old": None, "new": "a pipe"} for path in pipes}
    change = {**nothing, "changes": {"diff": added(SHOWN, conf), **made}}
    assert lb1.call("keepalived.plan_config", str(conf)) == change
    assert list(conf.parent.iterdir()) == []
    assert not pipes[0].parent.exists()
    assert lb1.call("keepalived.apply_config", str(conf)) == change
    assert [stat.S_ISFIFO(path.stat().st_mode) for path in pipes] == [True, True]
    assert (conf.read_text(), access(conf)) == (GOLDEN, "0600")
    assert lb1.call("keepalived.plan_config", str(conf)) == nothing
    assert lb1.call("keepalived.apply_config", str(conf)) == nothing


def test_what_keepalived_refuses_is_told_in_its_own_words(broken: Minion, conf: Path) -> None:
    conf.write_text(BROKEN)
    conf.chmod(0o600)
    found = broken.call("keepalived.check_config", str(conf))
    assert found[0] == (
        "line 3 (interface nope0): WARNING - interface nope0 for vrrp_instance x doesn't exist"
    )
    with pytest.raises(CommandExecutionError, match=f"^{conf} is not loaded:\nline 3"):
        broken.call("keepalived.reload", str(conf))


def test_the_version_is_that_of_the_program(lb1: Minion) -> None:
    assert lb1.call("keepalived.version")[0] in "123456789"


def test_the_status_tells_which_vips_are_here(minion: MinionMaker, pillar: dict[str, Any]) -> None:
    assert CARD
    here = str(CARD.addresses[0].address.ip)
    instance = pillar["lvs"]["vrrp_instances"]["VirtIP_10"]
    elsewhere = "fd00::ffff:10" if ":" in here else "203.0.113.10"
    pillar["lvs"].update(vrrp_instances={"x": instance}, virtual_servers={}, sync_daemon=None)
    pillar.pop("lvs_secrets")
    instance["virtual_ipaddress"] = [elsewhere, here]
    found = minion("lb1", pillar).call("keepalived.status")["vrrp_instances"]["x"]
    assert {key: found[key] for key in ("state", "vips", "vips_held")} == {
        "state": None,
        "vips": [elsewhere, here],
        "vips_held": [here],
    }


# --------------------------------------------------------------------------------------------------
# State


def test_the_state_tells_writes_and_is_then_right(
    lb1: Minion, conf: Path, pipes: list[Path]
) -> None:
    told = lb1.state("keepalived.config", str(conf), test=True)
    made = {str(path): {"old": None, "new": "a pipe"} for path in pipes}
    assert told == {
        "name": str(conf),
        "result": None,
        "changes": {"diff": added(SHOWN, conf), **made},
        "comment": f"{conf} would be updated.",
    }
    assert list(conf.parent.iterdir()) == []

    done = lb1.state("keepalived.config", str(conf))
    assert done == {**told, "result": True, "comment": f"{conf} has been updated."}
    assert (conf.read_text(), access(conf)) == (GOLDEN, "0600")

    before = written(conf)
    for test in (True, False):
        assert lb1.state("keepalived.config", str(conf), test=test) == {
            "name": str(conf),
            "result": True,
            "changes": {},
            "comment": f"{conf} is as it should be.",
        }
    assert written(conf) == before


def test_the_state_fails_each_time_while_keepalived_runs_with_another_file(
    lb1: Minion, conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from saltext.lvs import running

    monkeypatch.setattr(running, "process", lambda *_: 7)
    monkeypatch.setattr(running, "source_of", lambda _: "/etc/other.conf")
    words = f"keepalived (process 7) runs with /etc/other.conf, not with {conf}"
    for test in (True, False, True, False):
        told = lb1.state("keepalived.config", str(conf), test=test)
        assert told["result"] is False
        assert told["comment"].startswith(f"keepalived does not go by {conf}:\n{words}")
        assert "loaded" not in told["changes"]
    assert conf.read_text() == GOLDEN


def test_the_state_closes_a_file_that_others_can_read(lb1: Minion, conf: Path) -> None:
    lb1.state("keepalived.config", str(conf))
    conf.write_text(GOLDEN)
    conf.chmod(0o644)
    told = lb1.state("keepalived.config", str(conf), test=True)
    assert told["changes"] == {"mode": {"old": "0644", "new": "0600"}}
    assert access(conf) == "0644"
    done = lb1.state("keepalived.config", str(conf))
    assert done["changes"] == told["changes"]
    assert access(conf) == "0600"


def test_a_changed_password_is_a_change_that_does_not_show_it(lb1: Minion, conf: Path) -> None:
    conf.write_text(GOLDEN.replace(PASSWORD, "FORMER"))
    conf.chmod(0o600)
    done = lb1.state("keepalived.config", str(conf))
    assert done["changes"]["diff"].splitlines()[3:] == [
        "     advert_int 3",
        "     authentication {",
        "         auth_type PASS",
        f"-        auth_pass {STARS}",
        f"+        auth_pass {STARS}",
        "     }",
        "     virtual_ipaddress {",
        "         10.10.10.10/32 dev eth0",
    ]
    assert conf.read_text() == GOLDEN


def test_the_file_before_is_kept_for_root_alone(lb1: Minion, conf: Path) -> None:
    conf.write_text("# former\n")
    conf.chmod(0o644)
    lb1.state("keepalived.config", str(conf))
    previous = Path(f"{conf}.previous")
    assert (previous.read_text(), access(previous)) == ("# former\n", "0600")


def test_something_in_the_way_of_a_pipe_is_named_and_stays(
    lb1: Minion, conf: Path, pipes: list[Path]
) -> None:
    pipes[0].parent.mkdir()
    pipes[0].write_text("INSTANCE\n")
    for test in (True, False):
        answer = lb1.state("keepalived.config", str(conf), test=test)
        assert (answer["result"], answer["changes"]) == (False, {})
        assert answer["comment"] == (
            f"{pipes[0]} is a file with something in it, and should be a pipe: take it away"
        )
    assert list(conf.parent.iterdir()) == []


@pytest.mark.parametrize("test", [True, False], ids=["in test mode", "for real"])
def test_the_state_leaves_the_old_file_where_the_new_one_is_refused(
    broken: Minion, conf: Path, test: bool
) -> None:
    conf.write_text(GOLDEN)
    conf.chmod(0o600)
    before = written(conf)
    answer = broken.state("keepalived.config", str(conf), test=test)
    assert (answer["result"], answer["changes"]) == (False, {})
    head, problem, *_ = answer["comment"].splitlines()
    assert head == f"keepalived refuses the new {conf}; the old one stays:"
    place = "lvs:vrrp_instances:x:interface"
    assert problem.startswith(f"{place}: line 3 (interface nope0): WARNING - interface nope0")
    assert (conf.read_text(), written(conf)) == (GOLDEN, before)
    assert list(conf.parent.iterdir()) == [conf]


def test_before_keepalived_is_installed_test_mode_foresees_the_file(
    lb1: Minion, conf: Path, tmp_path: Path, pipes: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from saltext.lvs import program

    made = {str(path): {"old": None, "new": "a pipe"} for path in pipes}

    lb1.call("keepalived.render")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(program, "_FOLDERS", ())
    conf.parent.rmdir()
    told = lb1.state("keepalived.config", str(conf), test=True)
    assert told == {
        "name": str(conf),
        "result": None,
        "changes": {"diff": added(SHOWN, conf), **made},
        "comment": f"{conf} would be updated. keepalived is not installed yet, so it could not "
        "check it.",
    }
    done = lb1.state("keepalived.config", str(conf))
    assert (done["result"], done["changes"]) == (False, {})
    assert done["comment"] == "keepalived is not installed"


def test_the_state_fails_in_words_for_a_wrong_pillar(
    minion: MinionMaker, pillar: dict[str, Any], conf: Path
) -> None:
    pillar["lvs"]["directors"]["lb1"]["priority"] = 300
    answer = minion("lb1", pillar).state("keepalived.config", str(conf))
    assert (answer["result"], answer["changes"]) == (False, {})
    assert "lvs:directors:lb1:priority is 300" in answer["comment"]


def test_the_template_is_that_of_the_environment_of_the_sls(
    lb1: Minion, conf: Path, tmp_path: Path
) -> None:
    staging = tmp_path / "staging"
    (staging / "lvs/files").mkdir(parents=True)
    (staging / "lvs/files/keepalived.conf.jinja").write_text("global_defs {\n}\n")
    (staging / "only.sls").write_text(f"x:\n  keepalived.config:\n    - name: {conf}\n")
    roots = {**lb1.caller.sminion.opts["file_roots"], "staging": [str(staging)]}
    lb1.caller = salt.client.Caller(mopts={**lb1.caller.sminion.opts, "file_roots": roots})
    (answer,) = lb1.call("state.sls", "only", saltenv="staging").values()
    assert answer["result"] is True
    assert conf.read_text() == "global_defs {\n}\n"


# --------------------------------------------------------------------------------------------------
# Secrets


def test_the_password_is_in_the_file_and_nowhere_else(
    lb1: Minion, broken: Minion, conf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[Any] = []
    with caplog.at_level(1):
        for one in (lb1, broken):
            answers.append(one.state("keepalived.config", str(conf), test=True))
            answers.append(one.state("keepalived.config", str(conf)))
            answers.append(one.call("keepalived.render"))
            answers.append(one.call("keepalived.plan_config", str(conf)))
            answers.append(one.call("keepalived.write_config", str(conf)))
            answers.append(one.call("keepalived.check_config", str(conf)))
            answers.append(one.call("keepalived.status"))
    assert PASSWORD in conf.read_text()
    assert PASSWORD not in repr(answers)
    # Salt's pillar compiler logs every pillar file whole, on the master where there is one.
    logged = [record.getMessage() for record in caplog.records if record.name != "salt.template"]
    assert any("keepalived" in message for message in logged)
    assert not [message for message in logged if PASSWORD in message]
    root = conf.parent.parent
    holders = {path for path in root.rglob("*") if path.is_file() and holds(path)}
    assert {path for path in holders if path.name != "cluster.sls"} == {conf}


def holds(path: Path) -> bool:
    return PASSWORD.encode() in path.read_bytes()


def test_no_password_is_in_what_keepalived_has_against_a_file(lb1: Minion, conf: Path) -> None:
    conf.write_text(f"vrrp_instance x {{\n    auth_pas {PASSWORD}\n}}\n", encoding="utf-8")
    told = lb1.call("keepalived.check_config", path=str(conf))
    assert told
    assert PASSWORD not in str(told)
    with pytest.raises(CommandExecutionError) as caught:
        lb1.call("keepalived.reload", path=str(conf))
    assert PASSWORD not in str(caught.value)
