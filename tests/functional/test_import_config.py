"""keepalived.import_config under Salt's own loader: what it returns, and what it never does."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from salt.exceptions import CommandExecutionError, SaltInvocationError
from saltext.lvs import importing, model

from tests.functional.conftest import CHECKOUT, Minion, MinionMaker

CONF = (CHECKOUT / "tests/data/adopted/first_director.conf").read_text(encoding="utf-8")
PASSWORD = "MY_PASS"


@pytest.fixture
def lb1(minion: MinionMaker) -> Minion:
    return minion("lb1", {})


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "site.conf"
    path.write_text(CONF, encoding="utf-8")
    return path


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    return tmp_path / "state" / "lvs_secrets.sls"


def run(lb1: Minion, conf: Path, secrets: Path, **options: Any) -> Any:
    return lb1.call("keepalived.import_config", path=str(conf), secrets=str(secrets), **options)


def test_the_pillar_is_returned_and_the_password_is_in_a_file_of_roots_alone(
    lb1: Minion, conf: Path, secrets: Path
) -> None:
    answer = run(lb1, conf, secrets, names={"10.10.10.41": "rs1", "10.10.10.42": "rs2"})
    assert PASSWORD not in str(answer)
    assert answer["secrets"] == str(secrets)
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
    kept = yaml.safe_load(secrets.read_text(encoding="utf-8"))
    cluster = model.from_pillar(importing.joined(answer["pillar"], kept))
    assert list(cluster.directors) == ["lb1"]
    assert list(cluster.real_servers) == ["rs1", "rs2"]
    assert cluster.vrrp_instances["VirtIP_10"].auth_pass == PASSWORD


def test_a_link_in_place_of_the_file_is_replaced_and_not_followed(
    lb1: Minion, conf: Path, secrets: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine", encoding="utf-8")
    secrets.parent.mkdir()
    secrets.symlink_to(victim)
    run(lb1, conf, secrets)
    assert victim.read_text(encoding="utf-8") == "mine"
    assert not secrets.is_symlink()
    assert PASSWORD in secrets.read_text(encoding="utf-8")


def test_an_older_file_is_replaced(lb1: Minion, conf: Path, secrets: Path) -> None:
    secrets.parent.mkdir()
    secrets.write_text("old", encoding="utf-8")
    secrets.chmod(0o644)
    run(lb1, conf, secrets)
    assert "old" not in secrets.read_text(encoding="utf-8")
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600


def test_without_a_password_there_is_no_file(lb1: Minion, conf: Path, secrets: Path) -> None:
    conf.write_text(CONF.replace(f"auth_pass {PASSWORD}", ""), encoding="utf-8")
    assert run(lb1, conf, secrets)["secrets"] is None
    assert not secrets.exists()


def test_a_password_that_looks_like_a_template_is_taken_as_it_is(
    lb1: Minion, conf: Path, secrets: Path
) -> None:
    conf.write_text(CONF.replace(PASSWORD, '"{{x}}#!"'), encoding="utf-8")
    run(lb1, conf, secrets)
    text = secrets.read_text(encoding="utf-8")
    assert text.startswith("#!yaml\n")
    assert yaml.safe_load(text)["lvs_secrets"]["vrrp_instances"] == {
        "VirtIP_10": {"auth_pass": "{{x}}#!"}
    }


WRONG = {
    "no file": (None, "/site.conf: No such file or directory"),
    "no keepalived.conf": ("a {\n b\n", "site.conf:1: the block that begins here does not end"),
    "something binary": ("\0\1\2", "is not a text"),
}


@pytest.mark.parametrize(("text", "said"), list(WRONG.values()), ids=list(WRONG))
def test_what_is_no_configuration_is_told_with_its_place(
    lb1: Minion, conf: Path, secrets: Path, text: str | None, said: str
) -> None:
    conf.unlink()
    if text is not None:
        conf.write_text(text, encoding="utf-8")
    with pytest.raises(CommandExecutionError) as caught:
        run(lb1, conf, secrets)
    assert said in str(caught.value)
    assert not secrets.exists()


def test_names_that_are_none_are_refused(lb1: Minion, conf: Path, secrets: Path) -> None:
    with pytest.raises(SaltInvocationError, match="names"):
        run(lb1, conf, secrets, names={"rs1": "10.10.10.41"})
    with pytest.raises(SaltInvocationError, match="secrets"):
        run(lb1, conf, Path("relative"))


def test_what_keepalived_has_against_the_file_is_told_without_the_password(
    lb1: Minion, conf: Path, secrets: Path
) -> None:
    conf.write_text(
        CONF.replace("advert_int 3", "advert_int 3\n    brandnew 7").replace(
            f"auth_pass {PASSWORD}", f"auth_pass {PASSWORD}_AND_MORE"
        ),
        encoding="utf-8",
    )
    answer = run(lb1, conf, secrets)
    told = [(note["words"], note["why"]) for note in answer["notes"]]
    assert ("brandnew 7", "not taken over: keepalived does not know this keyword") in told
    assert (
        "auth_pass **********",
        "only the first eight characters count, and are taken over",
    ) in told
    assert PASSWORD not in str(answer)
