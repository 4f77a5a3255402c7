"""The runner on a master that serves the example pillar from Salt's own environments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import salt.config
import salt.pillar
import salt.runner

from tests.functional.conftest import CHECKOUT, EXAMPLES

VALID = {"valid": True, "problems": [], "warnings": []}


@pytest.fixture
def master(tmp_path: Path) -> dict[str, Any]:
    """A master's configuration with the example pillar."""
    (tmp_path / "cache" / "proc").mkdir(parents=True)
    opts: dict[str, Any] = salt.config.master_config(None)
    opts.update(
        root_dir=str(tmp_path),
        cachedir=str(tmp_path / "cache"),
        pki_dir=str(tmp_path / "pki"),
        sock_dir=str(tmp_path / "sock"),
        conf_file=str(tmp_path / "master"),
        log_file=str(tmp_path / "log"),
        module_dirs=[str(CHECKOUT)],
        file_roots={"base": [str(CHECKOUT)]},
        pillar_roots={
            "base": [str(EXAMPLES)],
            "production": [str(EXAMPLES / "production")],
            "staging": [str(EXAMPLES / "staging")],
        },
    )
    return opts


def validate(master: dict[str, Any], *args: str) -> Any:
    return salt.runner.RunnerClient(master).cmd("lvs.validate", list(args), print_event=False)


@pytest.mark.parametrize(
    ("minion_id", "cluster", "roles"),
    [
        ("lb1", "prod", ["director"]),
        ("lb2", "prod", ["director"]),
        ("rs1", "prod", ["realserver"]),
        ("kvm1", "prod", ["hypervisor"]),
        ("staging-lb1", "staging", ["director"]),
        ("staging-rs2", "staging", ["realserver"]),
    ],
)
def test_each_minion_of_the_examples_has_a_valid_pillar(
    master: dict[str, Any], minion_id: str, cluster: str, roles: list[str]
) -> None:
    assert validate(master, minion_id) == {minion_id: {**VALID, "cluster": cluster, "roles": roles}}


def test_a_minion_without_a_cluster_is_told_so_when_asked_for(master: dict[str, Any]) -> None:
    assert validate(master, "elsewhere") == {
        "elsewhere": {
            "valid": False,
            "problems": [
                "lvs is missing; it should be the cluster's description; see docs/pillar.md"
            ],
            "warnings": [],
        }
    }


@pytest.mark.parametrize(
    ("minion_id", "gets_it"),
    [
        ("lb1", True),
        ("lb2", True),
        ("rs1", False),
        ("rs2", False),
        ("kvm1", False),
        ("staging-lb1", True),
        ("staging-rs1", False),
        ("elsewhere", False),
    ],
)
def test_only_directors_are_given_the_password(
    master: dict[str, Any], minion_id: str, gets_it: bool
) -> None:
    # A minion says its grains itself: those of a director must not help a real server.
    grains = {"id": minion_id, "host": "lb1", "fqdn": "lb1", "nodename": "lb1", "roles": "director"}
    pillar = salt.pillar.Pillar(master, grains, minion_id, None).compile_pillar()
    assert ("MY_PASS" in str(dict(pillar)) or "STAGING" in str(dict(pillar))) is gets_it
    assert ("lvs_secrets" in pillar) is gets_it


def test_a_broken_pillar_file_is_told_as_such(master: dict[str, Any], tmp_path: Path) -> None:
    broken = tmp_path / "pillar"
    broken.mkdir()
    (broken / "top.sls").write_text("base: {'*': [lvs]}\n", encoding="utf-8")
    (broken / "lvs.sls").write_text("lvs: {name: [\n", encoding="utf-8")
    master["pillar_roots"] = {"base": [str(broken)]}
    answer = validate(master, "lb1")["lb1"]
    assert answer["valid"] is False
    assert "lvs" in answer["problems"][0]
