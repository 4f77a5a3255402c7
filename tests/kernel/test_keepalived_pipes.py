"""The real keepalived keeps our pipes, and its notify scripts, through reloads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from saltext.lvs import fifos, keepalived, loading, model

from tests.golden.cases import TEMPLATE
from tests.kernel.commands import ip
from tests.kernel.keepaliveds import started

PILLAR = """
lvs:
  directors: {lb1: {priority: 150}}
  vrrp_instances:
    VirtIP_10: {interface: eth0, virtual_router_id: 10, advert_int: 1, virtual_ipaddress: [VIP]}
"""
SCRIPT_USER = """
  keepalived:
    global_defs: {script_user: root, enable_script_security: True}
"""
VIP = "10.10.10.10"
RELOADS = 3


@pytest.mark.parametrize(
    "more", [pytest.param("", id="no script_user"), pytest.param(SCRIPT_USER, id="script_user")]
)
def test_a_reload_keeps_both_pipes_open(netns: None, tmp_path: Path, more: str) -> None:
    ip("link add eth0 type veth peer name eth0-peer")
    ip("link set eth0-peer up")
    ip("link set eth0 up")
    ip("address add 10.10.10.11/24 dev eth0")
    cluster = model.from_pillar(yaml.safe_load(PILLAR.replace("VIP", VIP) + more))
    text = keepalived.render(cluster, "lb1", TEMPLATE)
    own = [str(tmp_path / Path(path).name) for path in fifos.PATHS]
    for theirs, path in zip(fifos.PATHS, own, strict=True):
        os.mkfifo(path, 0o600)
        text = text.replace(theirs, path)
    with started(tmp_path, text, VIP) as daemon:
        before = opened(daemon.pid, own)
        assert {path for paths in before for path in paths} >= {own[0]}
        for _ in range(RELOADS):
            loading.reload(daemon.pid)
        assert opened(daemon.pid, own) == before
        assert "ignoring" not in daemon.log.read_text()


def opened(pid: int, paths: list[str]) -> list[set[str]]:
    """Which of some files each of keepalived's children has open."""
    return [
        {
            target
            for number in os.listdir(f"/proc/{child}/fd")
            if (target := os.readlink(f"/proc/{child}/fd/{number}")) in paths
        }
        for child in loading.children(pid)
    ]
