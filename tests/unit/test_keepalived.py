"""The keepalived library without keepalived: rendering, and what becomes of what the program says.

``program`` stands in for keepalived where its words matter; the kernel tests ask the real one.
"""

from __future__ import annotations

import copy
import ipaddress
import logging
import os
import re
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import applying, errors, keepalived, model, running
from saltext.lvs import program as installed

from tests.golden.cases import TEMPLATE
from tests.unit.test_trackfiles import cluster as kept_by_keepalived

STARS = "**********"
PASSWORD = "s3cr3t!"
PILLAR: dict[str, Any] = {
    "lvs": {
        "directors": ["lb1", "lb2"],
        "vrrp_instances": {
            "VirtIP_10": {
                "interface": "eth0",
                "virtual_router_id": 10,
                "virtual_ipaddress": ["10.10.10.10"],
            }
        },
    },
    "lvs_secrets": {"vrrp_instances": {"VirtIP_10": {"auth_pass": PASSWORD}}},
}
CLUSTER = model.from_pillar(PILLAR)


# --------------------------------------------------------------------------------------------------
# Render


def test_a_minion_that_is_no_director_has_no_configuration() -> None:
    with pytest.raises(errors.WrongRole):
        keepalived.render(CLUSTER, "rs1", TEMPLATE)


def test_a_template_is_given_more_names() -> None:
    template = "{{ grains.os }} {{ director.minion_id }}\n"
    assert (
        keepalived.render(CLUSTER, "lb2", template, {"grains": {"os": "Debian"}}) == "Debian lb2\n"
    )


PASS = "cluster.vrrp_instances.VirtIP_10.auth_pass"
BROKEN: dict[str, tuple[str, str]] = {
    "a block without its end": (
        "a\n{% if x %}\n",
        "my.jinja, line 2: TemplateSyntaxError: Unexpected end of template.",
    ),
    "a name that is not there": (
        "a\nb\n{{ directors }}\n",
        "my.jinja, line 3: UndefinedError: 'directors' is undefined",
    ),
    "an attribute that is not there": (
        "{{ director.prio }}",
        "my.jinja, line 1: UndefinedError: 'saltext.lvs.model.Director object' has no attribute "
        "'prio'",
    ),
    "a calculation that fails": ("\n{{ 1 // 0 }}", "my.jinja, line 2: ZeroDivisionError:"),
    "another file": (
        "{% include 'other' %}",
        "my.jinja, line 1: TypeError: no loader for this environment specified",
    ),
    "an error with the password in it": (f"{{{{ {{}}[{PASS}].x }}}}", f"my.jinja, line 1: {STARS}"),
    "an error that Python makes of the password": (
        f"{{{{ {PASS} | int(base=[]) }}}}{{{{ 1 + {PASS} }}}}",
        "my.jinja, line 1: TypeError:",
    ),
}


@pytest.mark.parametrize(("template", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_template_that_fails_is_named_with_its_line(template: str, message: str) -> None:
    with pytest.raises(errors.CommandFailed) as caught:
        keepalived.render(CLUSTER, "lb1", template, name="my.jinja")
    assert str(caught.value).startswith(message)
    shown = "".join(traceback.format_exception(caught.value))
    assert PASSWORD not in shown


def test_what_is_shown_of_a_configuration_has_stars_for_passwords() -> None:
    text = keepalived.render(CLUSTER, "lb1", TEMPLATE)
    assert f'auth_pass "{PASSWORD}"' in text
    assert keepalived.mask(text, CLUSTER) == text.replace(f'"{PASSWORD}"', STARS)


@given(st.from_regex(re.compile(model.AUTH_PASS), fullmatch=True))
def test_a_password_stands_once_in_the_file_and_never_in_what_is_shown(password: str) -> None:
    pillar = copy.deepcopy(PILLAR)
    pillar["lvs_secrets"]["vrrp_instances"]["VirtIP_10"]["auth_pass"] = password
    cluster = model.from_pillar(pillar)
    text = keepalived.render(cluster, "lb1", TEMPLATE)
    assert text.count(f'        auth_pass "{password}"\n') == 1
    assert keepalived.mask(text, cluster).count(f"auth_pass {STARS}\n") == 1


UNREADABLE = {
    "a backslash at the end": "a\\",
    "a variable": "a${b",
    "an opening brace alone": "{",
    "a closing brace alone": "}",
    "a double quote": 'a"b',
    "a space": "a b",
    "a newline": "a\nb",
    "a newline at the end": "a\n",
    "a letter beyond ASCII": "é",
    "nothing": "",
    "nine characters": "123456789",
}


@pytest.mark.parametrize("password", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_password_that_keepalived_cannot_read_is_refused(password: str) -> None:
    pillar = copy.deepcopy(PILLAR)
    pillar["lvs_secrets"]["vrrp_instances"]["VirtIP_10"]["auth_pass"] = password
    with pytest.raises(errors.InvalidConfig, match="auth_pass is [*]{10}; it should be 1 to 8"):
        model.from_pillar(pillar)


# --------------------------------------------------------------------------------------------------
# Check

Program = Callable[[str], Path]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Put a shell script in keepalived's place; the file that it returns tells how it is called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    calls = tmp_path / "calls"

    def install(body: str) -> Path:
        script = folder / "keepalived"
        script.write_text(f'#!/bin/sh\necho "$LC_ALL $*" >> {calls}\n{body}\n')
        script.chmod(0o755)
        return calls

    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return install


@pytest.fixture
def no_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without keepalived."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(installed, "_FOLDERS", ())


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A configuration file with a password in its third line."""
    path = tmp_path / "etc" / "keepalived.conf"
    path.parent.mkdir()
    path.write_text(f'router_id x\n  priority 999\nauth_pass "{PASSWORD}"\n')
    path.chmod(0o600)
    return path


def test_a_file_that_keepalived_accepts_has_no_complaints(program: Program, conf: Path) -> None:
    calls = program("exit 0")
    assert keepalived.check(str(conf)) == ()
    assert calls.read_text() == f"C -t -f {conf}\n"


SAID: dict[str, tuple[str, list[str]]] = {
    "a line of the file": (
        "(Line 2) number '999' outside range [1, 255]",
        ["line 2 (priority 999): number '999' outside range [1, 255]"],
    ),
    "a line of the file by its name": (
        "({conf}: Line 1) Unknown keyword 'router_id'",
        ["line 1 (router_id x): Unknown keyword 'router_id'"],
    ),
    "the same from each of its processes": (
        "(Line 1) hm\n({conf}: Line 1) hm\n({conf}: Line 1) hm",
        ["line 1 (router_id x): hm"],
    ),
    "a line of another file": (
        "(/etc/other.conf: Line 1) Unknown keyword 'a'",
        ["(/etc/other.conf: Line 1) Unknown keyword 'a'"],
    ),
    "no line at all": ("There are 1 missing '}}'s", ["There are 1 missing '}'s"]),
    "a line that is not there": ("(Line 77) hm", ["hm"]),
    "the password": (f"cannot use {PASSWORD}", [STARS]),
    "a line with a password": (
        "(Line 3) Truncating auth_pass to 8 characters",
        [f"line 3 (auth_pass {STARS}): Truncating auth_pass to 8 characters"],
    ),
    "a part of a password": (
        "(Line 3) Unknown keyword 's3c'",
        [f"line 3 (auth_pass {STARS}): not as keepalived wants it"],
    ),
    "nothing": ("", ["keepalived refuses it without a word, with exit status 5"]),
}


@pytest.mark.parametrize(("said", "expected"), SAID.values(), ids=SAID.keys())
def test_keepalived_is_quoted_with_the_line_it_means(
    program: Program, conf: Path, said: str, expected: list[str]
) -> None:
    program(f"cat >&2 <<'EOF'\n{said.format(conf=conf)}\nEOF\nexit 5")
    assert keepalived.check(str(conf), [PASSWORD]) == tuple(expected)


@pytest.mark.parametrize("status", [1, 2, 4, 5, 6, 255])
def test_any_exit_status_but_zero_is_a_refusal(program: Program, conf: Path, status: int) -> None:
    program(f"echo hm; exit {status}")
    assert keepalived.check(str(conf)) == ("hm",)


def test_a_keepalived_that_dies_refuses(program: Program, conf: Path) -> None:
    program("kill -SEGV $$")
    (complaint,) = keepalived.check(str(conf))
    assert complaint == "keepalived refuses it without a word, with exit status -11"


def test_an_interface_that_keepalived_does_not_look_for_is_told(
    program: Program, conf: Path
) -> None:
    program("exit 0")
    conf.write_text("lvs_sync_daemon lo x\n  lvs_sync_daemon nope0 x id 7\n")
    assert keepalived.check(str(conf)) == (
        "line 2 (lvs_sync_daemon nope0 x id 7): there is no interface nope0",
    )


def test_files_that_keepalived_passes_unread_are_told(program: Program, conf: Path) -> None:
    calls = program("exit 0")
    empty = conf.parent / "empty.conf"
    empty.write_text(" \n")
    conf.chmod(0o700)
    found = [keepalived.check(str(path)) for path in (conf.parent / "no", conf.parent, empty, conf)]
    assert found == [
        (f"{conf.parent}/no is not there, or is no file",),
        (f"{conf.parent} is not there, or is no file",),
        (f"{empty} is empty",),
        (f"{conf} is executable: keepalived does not read such a file",),
    ]
    assert not calls.exists()


def test_a_keepalived_that_hangs_is_ended(
    program: Program, conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("exec sleep 60")
    monkeypatch.setattr(installed, "TIMEOUT_SECONDS", 0.2)
    with pytest.raises(errors.CommandFailed, match="^keepalived -t did not end within 0.2 s$"):
        keepalived.check(str(conf))


def test_without_keepalived_nothing_can_be_checked(no_program: None, conf: Path) -> None:
    with pytest.raises(errors.NotAvailable, match="^keepalived is not installed$"):
        keepalived.check(str(conf))


def test_the_version_is_read(program: Program) -> None:
    program("echo 'Keepalived v2.2.7 (01/16,2022)' >&2")
    assert installed.version() == "2.2.7"


def test_another_program_of_that_name_has_no_version(program: Program) -> None:
    program("echo hello")
    with pytest.raises(errors.CommandFailed):
        installed.version()


# --------------------------------------------------------------------------------------------------
# Plan and apply


@pytest.fixture
def text() -> str:
    return keepalived.render(CLUSTER, "lb1", TEMPLATE)


def access(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


def written(path: Path) -> tuple[int, int, int]:
    """What tells whether a file was written to, or replaced, since."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def test_a_new_file_is_planned_and_written(program: Program, tmp_path: Path, text: str) -> None:
    program("exit 0")
    path = tmp_path / "keepalived.conf"
    planned = keepalived.plan(str(path), text, [PASSWORD])
    assert not path.exists()
    assert PASSWORD not in str(planned)
    assert planned.changes["diff"].count("\n+") == text.count("\n") + 1
    umask = os.umask(0)
    try:
        assert keepalived.apply(str(path), text, [PASSWORD]) == planned
    finally:
        os.umask(umask)
    assert (path.read_text(), access(path)) == (text, "0600")
    assert keepalived.apply(str(path), text, [PASSWORD]) == keepalived.FileChange({})


def test_what_is_right_is_not_asked_for_again(program: Program, tmp_path: Path, text: str) -> None:
    calls = program("exit 0")
    path = tmp_path / "keepalived.conf"
    path.write_text(text)
    path.chmod(0o600)
    before = written(path)
    assert keepalived.apply(str(path), text, [PASSWORD]) == keepalived.FileChange({})
    assert written(path) == before
    assert not calls.exists()


def test_the_file_that_was_checked_is_the_one_that_is_put_there(
    program: Program, conf: Path, text: str
) -> None:
    calls = program(f"stat -c '%a %i' \"$3\" > {conf.parent.parent}/checked; exit 0")
    keepalived.apply(str(conf), text, [PASSWORD])
    checked = (conf.parent.parent / "checked").read_text().split()
    assert checked == ["600", str(conf.stat().st_ino)]
    assert re.fullmatch(rf"C -t -f {conf.parent}/\.keepalived\.conf\.\w+\n", calls.read_text())
    assert sorted(conf.parent.iterdir()) == [conf, Path(f"{conf}.previous")]


@pytest.mark.parametrize("act", [keepalived.plan, keepalived.apply])
def test_what_keepalived_refuses_leaves_the_old_file(
    program: Program, conf: Path, text: str, act: Callable[..., keepalived.FileChange]
) -> None:
    program("echo \"($3: Line 7) Unknown keyword 'x'\"; exit 5")
    before = (conf.read_text(), written(conf))
    assert act(str(conf), text, [PASSWORD]) == keepalived.FileChange(
        {}, (f"line 7 ({text.splitlines()[6].strip()}): Unknown keyword 'x'",)
    )
    assert (conf.read_text(), written(conf)) == before
    assert list(conf.parent.iterdir()) == [conf]


def test_a_file_that_others_can_read_is_closed_even_if_the_new_one_is_refused(
    program: Program, conf: Path, text: str
) -> None:
    program("echo no; exit 5")
    conf.chmod(0o644)
    expected = keepalived.FileChange({"mode": {"old": "0644", "new": "0600"}}, ("no",))
    assert keepalived.plan(str(conf), text, [PASSWORD]) == expected
    assert access(conf) == "0644"
    assert keepalived.apply(str(conf), text, [PASSWORD]) == expected
    assert access(conf) == "0600"


def test_before_keepalived_is_installed_a_change_is_planned_unchecked(
    no_program: None, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "no" / "keepalived.conf"
    planned = keepalived.plan(str(path), text, [PASSWORD])
    assert (set(planned.changes), planned.problems, planned.checked) == ({"diff"}, (), False)
    with pytest.raises(errors.NotAvailable):
        keepalived.apply(str(path), text, [PASSWORD])
    assert not path.parent.exists()


def test_a_link_stays_one(program: Program, conf: Path, text: str) -> None:
    program("exit 0")
    link = conf.parent.parent / "link.conf"
    link.symlink_to(conf)
    keepalived.apply(str(link), text, [PASSWORD])
    assert link.is_symlink()
    assert conf.read_text() == text


def test_no_password_is_in_an_argument_or_a_log(
    program: Program, conf: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    calls = program("env; cat $3; exit 5")
    with caplog.at_level(logging.DEBUG):
        change = keepalived.apply(str(conf), text, [PASSWORD])
    assert PASSWORD not in calls.read_text() + caplog.text + str(change)
    assert change.problems


# --------------------------------------------------------------------------------------------------
# The running keepalived


@pytest.fixture
def pid_file(tmp_path: Path) -> Path:
    return tmp_path / "keepalived.pid"


def test_without_its_pid_file_it_does_not_run(pid_file: Path) -> None:
    assert running.process(str(pid_file)) is None


@pytest.mark.parametrize("content", ["", "abc", "0", "4194305"])
def test_a_pid_file_that_names_no_process_does_not_count(pid_file: Path, content: str) -> None:
    pid_file.write_text(content)
    assert running.process(str(pid_file)) is None


def test_another_program_with_its_number_does_not_count(pid_file: Path) -> None:
    pid_file.write_text(f"{os.getpid()}\n")
    assert running.process(str(pid_file)) is None


def test_a_wrong_file_is_not_loaded(program: Program, conf: Path, pid_file: Path) -> None:
    program("echo hm; exit 5")
    with pytest.raises(errors.CommandFailed, match=f"^{conf} is not loaded:\nhm$"):
        applying.reload(str(conf), str(pid_file))


def test_a_wrong_file_that_is_not_loaded_shows_no_password(
    program: Program, conf: Path, pid_file: Path
) -> None:
    conf.write_text(f"auth_pas {PASSWORD}\n")
    program("echo \"(Line 1) Unknown keyword 'auth_pas'\"; exit 5")
    with pytest.raises(errors.CommandFailed) as caught:
        applying.reload(str(conf), str(pid_file), {PASSWORD})
    words = f"line 1 ({STARS}): not as keepalived wants it"
    assert str(caught.value) == f"{conf} is not loaded:\n{words}"


def test_complaints_go_with_the_lacking_files_that_they_name_and_no_others(
    program: Program, conf: Path, pid_file: Path
) -> None:
    weights = conf.parent / "weights"
    stays = (
        "(Line 1) track_file nope not found",
        "(Line 1) track_file web/rs11 not found",
        "(Line 1) web/rs1 is no address",
    )
    goes = (
        f"(Line 1) track_file: realpath of '{weights}/web/rs1' failed",
        f"(Line 1) track_file: '{weights}/web' is not there",
        "(Line 1) track_file web/rs1: no file",
    )
    said = "\n".join((*stays, *goes))
    program(f"cat << END\n{said}\nEND\nexit 5")
    job = applying.Job(
        path=str(conf),
        text="a\n",
        cluster=kept_by_keepalived(),
        pid_file=str(pid_file),
        fifos=(),
        weights=str(weights),
        record=str(conf.parent / "record"),
    )
    words = [each.replace("(Line 1)", "line 1 (a):") for each in stays]
    assert applying.plan(job).problems == tuple(words)


def test_what_does_not_run_cannot_be_reloaded(program: Program, conf: Path, pid_file: Path) -> None:
    program("exit 0")
    with pytest.raises(errors.CommandFailed, match="^keepalived does not run$"):
        applying.reload(str(conf), str(pid_file))


def test_the_status_tells_which_vips_are_here(program: Program, pid_file: Path) -> None:
    program("echo 'Keepalived v2.2.7 (01/16,2022)'")
    pillar = copy.deepcopy(PILLAR)
    vips = ["10.10.10.10", "10.10.10.12", "10.10.10.13"]
    pillar["lvs"]["vrrp_instances"]["VirtIP_10"]["virtual_ipaddress"] = vips
    wanted = running.planned(model.from_pillar(pillar), "lb1")
    addresses = [("127.0.0.1", "lo"), ("10.10.10.12", "eth0"), ("10.10.10.13", "dummy0")]
    here = [running.Vip(ipaddress.ip_address(one), interface) for one, interface in addresses]
    assert running.status(wanted, here, str(pid_file)) == {
        "running": False,
        "hanging": False,
        "pid": None,
        "version": "2.2.7",
        "why": "keepalived does not run",
        "vrrp_instances": {
            "VirtIP_10": {
                "state": None,
                "priority": None,
                "last_transition": None,
                "vips": vips,
                "vips_held": ["10.10.10.12"],
            }
        },
    }


def test_the_status_of_a_machine_without_keepalived(no_program: None, pid_file: Path) -> None:
    status = running.status({}, [], str(pid_file))
    assert (status["running"], status["version"]) == (False, None)


def test_the_library_needs_no_salt() -> None:
    code = "import sys; from saltext.lvs import keepalived; sys.exit('salt' in sys.modules)"
    library = str(Path(keepalived.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": library}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
