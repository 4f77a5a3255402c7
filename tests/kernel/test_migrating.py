"""From Salt's own lvs to this extension: an SLS of 3007 on each Salt, and the page of the way."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.install.conftest import SALTS, Salt
from tests.kernel.commands import ip, ipvsadm
from tools.parts import CHECKOUT, ENVIRONMENTS

pytestmark = pytest.mark.usefixtures("netns")

# What a minion gets from the master by saltutil.sync_all.
SYNCED = ("_modules", "_states", "_utils")
# These Salts have modules of these names themselves.
WITH_THEIR_OWN = ("salt-3007", "salt-3006")


class Director:
    """The minion lb1 with files of its own: ``salt-call --local`` of one Salt."""

    def __init__(self, salt_name: str, root: Path) -> None:
        self._files, self._pillar = root / "files", root / "pillar"
        self._files.mkdir()
        self._pillar.mkdir()
        self.serve_pillar("{}")
        virtualenv = ENVIRONMENTS[salt_name].python.parents[1]
        self._salt = Salt(virtualenv, root / "salt", files=self._files, pillar=self._pillar)

    def serve_modules(self) -> None:
        """Put the checkout's modules where a sync finds them."""
        for name in SYNCED:
            unwanted = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(CHECKOUT / name, self._files / name, ignore=unwanted)
        # Salt believes in a list of files for twenty seconds.
        lists = self._salt.extension_modules / "minion" / "file_lists"
        shutil.rmtree(lists, ignore_errors=True)

    def serve(self, sls: str) -> None:
        (self._files / "lbs.sls").write_text(sls, encoding="utf-8")

    def serve_pillar(self, pillar: str) -> None:
        (self._pillar / "top.sls").write_text("base: {'*': [lvs]}\n", encoding="utf-8")
        (self._pillar / "lvs.sls").write_text(pillar, encoding="utf-8")

    def edit_pillar(self, line: str) -> None:
        """Put a line into the pillar in place of the one with its key."""
        text = (self._pillar / "lvs.sls").read_text(encoding="utf-8")
        key = re.escape(line.partition(":")[0])
        edited, count = re.subn(f"^{key}:.*\n", line, text, flags=re.MULTILINE)
        assert count == 1
        self.serve_pillar(edited)

    def call(self, *arguments: str) -> Any:
        return self._salt.call(*arguments)

    def apply(self, *arguments: str) -> dict[str, tuple[bool | None, Any]]:
        """Apply the SLS, and return the result and the changes of each state by its id."""
        return outcomes(self.call("state.apply", "lbs", *arguments))


def outcomes(answer: dict[str, Any]) -> dict[str, tuple[bool | None, Any]]:
    assert isinstance(answer, dict), answer
    return {state["__id__"]: (state["result"], state["changes"]) for state in answer.values()}


@pytest.fixture(params=SALTS)
def lb1(request: pytest.FixtureRequest, tmp_path: Path) -> Director:
    reason = ENVIRONMENTS[request.param].unavailable()
    if reason:
        pytest.skip(reason)
    return Director(request.param, tmp_path)


# --------------------------------------------------------------------------------------------------
# An SLS of 3007

SLS_OF_3007 = """\
{% set weights = salt['config.get']('weights', [10, 50]) %}

web:
  lvs_service.present:
    - protocol: tcp
    - service_address: 10.10.10.10:80
    - scheduler: wlc

web-rs1:
  lvs_server.present:
    - protocol: tcp
    - service_address: 10.10.10.10:80
    - server_address: 10.10.10.41:80
    - packet_forward_method: dr
    - weight: {{ weights[0] }}
    - require:
      - lvs_service: web

web-rs2:
  lvs_server.present:
    - protocol: tcp
    - service_address: 10.10.10.10:80
    - server_address: 10.10.10.42:8080
    - packet_forward_method: nat
    - weight: {{ weights[1] }}
    - require:
      - lvs_service: web

web-rs9:
  lvs_server.absent:
    - protocol: tcp
    - service_address: 10.10.10.10:80
    - server_address: 10.10.10.49:80
    - require:
      - lvs_service: web

dns:
  lvs_service.present:
    - protocol: udp
    - service_address: 10.10.10.10:53
    - scheduler: {{ salt['config.get']('scheduler', 'lblcr') }}

dns-rs1:
  lvs_server.present:
    - protocol: udp
    - service_address: 10.10.10.10:53
    - server_address: 10.10.10.41:53
    - packet_forward_method: tunnel
    - require:
      - lvs_service: dns

marked:
  lvs_service.present:
    - protocol: fwmark
    - service_address: 7

marked-rs1:
  lvs_server.present:
    - protocol: fwmark
    - service_address: 7
    - server_address: 10.10.10.41:0
    - require:
      - lvs_service: marked

{% if salt['lvs.check_service']('tcp', '10.10.10.10:8080') == True %}
only-where-there-is-an-old-one:
  test.succeed_without_changes
{% endif %}

old:
  lvs_service.absent:
    - protocol: tcp
    - service_address: 10.10.10.10:8080
    - require:
      - lvs_service: web
"""
OLD = "-A -t 10.10.10.10:8080 -s wlc\n"
TABLE = """\
-A -t 10.10.10.10:80 -s wlc
-a -t 10.10.10.10:80 -r 10.10.10.41:80 -g -w 10
-a -t 10.10.10.10:80 -r 10.10.10.42:8080 -m -w 50
-A -u 10.10.10.10:53 -s lblcr
-a -u 10.10.10.10:53 -r 10.10.10.41:53 -i -w 1 --tun-type ipip
-A -f 7 -s wlc
-a -f 7 -r 10.10.10.41:0 -g -w 1
"""
FIRST = {
    "web": (True, {"web": "Present"}),
    "web-rs1": (True, {"web-rs1": "Present"}),
    "web-rs2": (True, {"web-rs2": "Present"}),
    "web-rs9": (True, {}),
    "dns": (True, {"dns": "Present"}),
    "dns-rs1": (True, {"dns-rs1": "Present"}),
    "marked": (True, {"marked": "Present"}),
    "marked-rs1": (True, {"marked-rs1": "Present"}),
    "only-where-there-is-an-old-one": (True, {}),
    "old": (True, {"old": "Absent"}),
}
SECOND: dict[str, tuple[bool | None, Any]] = {
    state_id: (True, {}) for state_id in FIRST if state_id != "only-where-there-is-an-old-one"
}


def test_an_sls_of_3007_applies_as_it_stands(lb1: Director) -> None:
    lb1.serve(SLS_OF_3007)
    ipvsadm("-R", text=OLD)
    lb1.serve_modules()
    lb1.call("saltutil.sync_all")
    announced = lb1.apply("test=True")
    assert announced == {
        state_id: (None if changes else True, changes) for state_id, (_, changes) in FIRST.items()
    }
    assert ipvsadm("-Sn") == OLD
    assert lb1.apply() == FIRST
    assert ipvsadm("-Sn") == TABLE
    assert lb1.apply() == SECOND
    # From 10 to 1 and to 0, from lblcr to lblc: what Salt's own never did.
    lb1.serve_pillar("{weights: [1, 0], scheduler: lblc}")
    changed = {"web-rs1": "Update", "web-rs2": "Update", "dns": "Update"}
    assert lb1.apply() == {
        **SECOND,
        **{state_id: (True, {state_id: word}) for state_id, word in changed.items()},
    }
    now = TABLE.replace("-w 10", "-w 1").replace("-w 50", "-w 0").replace("lblcr", "lblc")
    assert ipvsadm("-Sn") == now
    assert lb1.apply() == SECOND


@pytest.mark.parametrize("lb1", WITH_THEIR_OWN, indirect=True)
def test_what_salts_own_modules_did_needs_nothing_more(lb1: Director) -> None:
    lb1.serve(SLS_OF_3007)
    ipvsadm("-R", text=OLD)
    # The very answers of Salt's own, before ours take their place.
    assert lb1.apply() == FIRST
    assert ipvsadm("-Sn") == TABLE
    their_rules = lb1.call("lvs.get_rules")
    lb1.serve_modules()
    lb1.call("saltutil.sync_all")
    assert lb1.call("lvs.validate")["valid"] is False
    assert lb1.apply() == SECOND
    assert ipvsadm("-Sn") == TABLE
    assert lb1.call("lvs.get_rules") == their_rules


# --------------------------------------------------------------------------------------------------
# The page


@pytest.fixture
def serves_itself(netns: None) -> None:
    """All addresses of the page are this machine's own: packets need nobody else."""
    for number in (10, 41, 42):
        address = f"10.10.10.{number}/32"
        ip(f"address add {address} dev lo")


class Connection:
    """A connection through the VIP that is held open."""

    def __enter__(self) -> Connection:
        with socket.socket() as listening:
            listening.bind(("", 80))
            listening.listen()
            self._client = socket.create_connection(("10.10.10.10", 80), timeout=5)
            self._server, _ = listening.accept()
        self._server.settimeout(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._server.close()

    def carries_on(self) -> bool:
        """Send something there and back."""
        for sender, receiver in ((self._client, self._server), (self._server, self._client)):
            sender.sendall(b"still here")
            if receiver.recv(100) != b"still here":
                return False
        return True


def steps() -> list[tuple[str, str]]:
    """What the page shows, in its order: ``yaml`` and the text, or a program and what follows it,
    with what it prints in the lines below.
    """
    text = (CHECKOUT / "docs" / "migrating.md").read_text(encoding="utf-8")
    found = []
    for kind, block in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if kind == "yaml":
            found.append((kind, block))
        else:
            commands = re.findall(r"^# (\w+) (.*\n(?:[^#].*\n)*)", block, re.MULTILINE)
            found += commands
    return found


def carried_out(lb1: Director, what: str, shown: str) -> Any:
    """Do one step; returns the gist of what Salt answers."""
    if what == "yaml":
        write(lb1, shown)
        return None
    first, _, printed = shown.partition("\n")
    words = shlex.split(first)
    if what == "ipvsadm":
        assert ipvsadm(*words) == printed
        return None
    target, function, *arguments = words
    assert (what, target) == ("salt", "lb1")
    if function == "saltutil.sync_all":
        lb1.serve_modules()
    answer = lb1.call(function, *arguments)
    if function == "state.apply":
        return outcomes(answer)
    return {key: answer[key] for key in GISTS.get(function, ())}


GISTS = {"lvs.validate": ("valid", "problems", "roles"), "ipvs.plan": ("operations",)}


def write(lb1: Director, shown: str) -> None:
    """Put a piece of YAML where the page means it: a pillar, a line of it, or else the SLS."""
    if shown.startswith("lvs:"):
        lb1.serve_pillar(shown)
    elif shown.startswith(" "):
        lb1.edit_pillar(shown)
    else:
        lb1.serve(shown)


UNCHANGED: dict[str, tuple[bool | None, Any]] = {
    "web": (True, {}),
    "web-rs1": (True, {}),
    "web-rs2": (True, {}),
}
DRAINED = {"tcp 10.10.10.10:80 -> 10.10.10.42:80": {"old": {"weight": 50}, "new": {"weight": 0}}}


@pytest.mark.usefixtures("serves_itself")
@pytest.mark.parametrize("lb1", ["salt-3007"], indirect=True)
def test_the_page_is_carried_out_from_top_to_bottom_and_no_connection_drops(lb1: Director) -> None:
    told = []
    with ExitStack() as at_the_end:
        connection = None
        for what, shown in steps():
            told.append(carried_out(lb1, what, shown))
            if connection is None and what == "ipvsadm":
                connection = at_the_end.enter_context(Connection())
            assert connection is None or connection.carries_on(), (what, shown)
    assert [answer for answer in told if answer] == [
        {name: (True, {name: "Present"}) for name in UNCHANGED},
        UNCHANGED,
        UNCHANGED,
        {"valid": True, "problems": [], "roles": ["director"]},
        {"operations": []},
        {"lvs-ipvs-table": (True, {})},
        {"lvs-ipvs-table": (True, {})},
        {"lvs-ipvs-table": (True, DRAINED)},
    ]
    assert ipvsadm("-Sn").endswith("-r 10.10.10.42:80 -g -w 0\n")


@pytest.mark.usefixtures("serves_itself")
def test_a_connection_that_is_dropped_would_be_seen() -> None:
    server = "-a -t 10.10.10.10:80 -r 10.10.10.41:80"
    ipvsadm("-R", text=f"-A -t 10.10.10.10:80\n{server}\n")
    with Connection() as connection:
        assert connection.carries_on()
        ipvsadm(*server.replace("-a", "-d").split())
        with pytest.raises(TimeoutError):
            connection.carries_on()
