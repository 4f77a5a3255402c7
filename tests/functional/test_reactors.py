"""What the master's reactors make of an event, under Salt's own reactor without its process."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import salt.config
import salt.utils.reactor
from salt.utils.data import repack_dictlist
from salt.utils.reactor import REACTOR_INTERNAL_KEYWORDS
from saltext.lvs import holders

from tests.functional.conftest import CHECKOUT


@pytest.fixture(scope="module")
def reactor(tmp_path_factory: pytest.TempPathFactory) -> salt.utils.reactor.Reactor:
    """Salt's own reactor."""
    root = tmp_path_factory.mktemp("master")
    opts = salt.config.master_config(None)
    opts.update(
        root_dir=str(root),
        cachedir=str(root / "cache"),
        pki_dir=str(root / "pki"),
        sock_dir=str(root / "sock"),
        extension_modules=str(root / "extmods"),
        file_roots={"base": [str(CHECKOUT)]},
    )
    return salt.utils.reactor.Reactor(opts)


def asked(
    reactor: salt.utils.reactor.Reactor, name: str, tag: str, data: Any
) -> dict[str, dict[str, Any]]:
    """What is asked for, and of whom, by function."""
    chunks = reactor.reactions(tag, data, [str(CHECKOUT / "_reactors" / name)])
    # What Salt itself adds to a reaction is not what is asked for.
    return {
        f"{chunk['state']}.{chunk['fun']}": {
            key: value for key, value in chunk.items() if key not in REACTOR_INTERNAL_KEYWORDS
        }
        for chunk in chunks
    }


@pytest.mark.parametrize("path", sorted((CHECKOUT / "_reactors").iterdir()), ids=lambda p: p.name)
def test_a_reactor_is_python_and_nothing_else(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("#!py\n")


# -------------------------------------------------------------------------------------------------
# A VIP is lost, or was heard on ARP

TAG = "salt/beacon/rs1/dummy/change"
LOST = {"interface": "dummy0", "address": "10.10.10.10", "was": "held", "now": "lost"}
BACK = {**LOST, "was": "lost", "now": "restored"}
RELEASED = {**LOST, "now": "released"}
NOISY = {"sysctl": "net.ipv4.conf.all.arp_ignore", "was": 1, "now": 0, "quiet": False}
QUIET = {**NOISY, "was": 0, "now": 1, "quiet": True, "repaired": True}
AUTOMATIC = {"args": [{"automatic": True}]}
REPAIR = {"local.dummy.repair": {"tgt": ["rs1"], "tgt_type": "list", **AUTOMATIC}}
ANNOUNCE = {"runner.lvs.announce": {"args": [{"minion_id": "rs1"}]}}
NOTHING: dict[str, Any] = {}
EVENTS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "a VIP is lost": (TAG, {"id": "rs1", "changes": [LOST]}, REPAIR),
    "one is lost, one is back": (TAG, {"id": "rs1", "changes": [BACK, LOST]}, REPAIR),
    "it is back already, by the minion's own doing": (
        TAG,
        {"id": "rs1", "acted": True, "changes": [LOST, BACK]},
        NOTHING,
    ),
    "the minion is about to put it back itself": (
        TAG,
        {"id": "rs1", "acted": False, "healing": True, "changes": [LOST, NOISY]},
        NOTHING,
    ),
    "it was put back again and again": (
        TAG,
        {"id": "rs1", "acted": False, "changes": [{**LOST, "gave_up": True}]},
        NOTHING,
    ),
    "the minion could not put it back itself": (
        TAG,
        {"id": "rs1", "acted": False, "healing": False, "changes": [{**LOST, "problem": "why"}]},
        REPAIR,
    ),
    "a VIP is back": (TAG, {"id": "rs1", "changes": [BACK]}, NOTHING),
    "a VIP was given up on purpose": (TAG, {"id": "rs1", "changes": [RELEASED]}, NOTHING),
    "it can be heard on ARP": (TAG, {"id": "rs1", "changes": [NOISY]}, REPAIR),
    "it was heard again and again": (
        TAG,
        {"id": "rs1", "changes": [{**NOISY, "gave_up": True}]},
        NOTHING,
    ),
    "it is quiet again, by the minion's own doing": (
        TAG,
        {"id": "rs1", "acted": True, "changes": [QUIET, BACK]},
        ANNOUNCE,
    ),
    "it is quiet again, by somebody else's": (
        TAG,
        {"id": "rs1", "acted": False, "changes": [QUIET]},
        ANNOUNCE,
    ),
    "it is quiet again, and a VIP is lost": (
        TAG,
        {"id": "rs1", "changes": [LOST, QUIET]},
        REPAIR | ANNOUNCE,
    ),
    "it is told not to be quiet in words": (
        TAG,
        {"id": "rs1", "changes": [{**QUIET, "quiet": "True"}, {"quiet": True}]},
        NOTHING,
    ),
    "nothing has changed": (TAG, {"id": "rs1", "changes": []}, NOTHING),
    "it is told in another one's name": (TAG, {"id": "rs2", "changes": [LOST, QUIET]}, NOTHING),
    "a star stands for itself": (
        "salt/beacon/*/dummy/change",
        {"id": "*", "changes": [LOST]},
        {"local.dummy.repair": {"tgt": ["*"], "tgt_type": "list", **AUTOMATIC}},
    ),
    "so do a comma and a line's end": (
        "salt/beacon/rs1,rs2\n/dummy/change",
        {"id": "rs1,rs2\n", "changes": [LOST, QUIET]},
        {
            "local.dummy.repair": {"tgt": ["rs1,rs2\n"], "tgt_type": "list", **AUTOMATIC},
            "runner.lvs.announce": {"args": [{"minion_id": "rs1,rs2\n"}]},
        },
    ),
    "an id that is no text": (
        "salt/beacon/['rs1']/dummy/change",
        {"id": ["rs1"], "changes": [LOST, QUIET]},
        NOTHING,
    ),
    "another beacon's event": (
        "salt/beacon/rs1/real_server/change",
        {"id": "rs1", "changes": [LOST, QUIET]},
        NOTHING,
    ),
    "changes that are no list": (TAG, {"id": "rs1", "changes": {"now": "lost"}}, NOTHING),
    "changes that are no mappings": (TAG, {"id": "rs1", "changes": ["lost", None, 7]}, NOTHING),
    "no changes": (TAG, {"id": "rs1"}, NOTHING),
    "no mapping at all": (TAG, "rs1", NOTHING),
}


@pytest.mark.parametrize(("tag", "data", "expected"), EVENTS.values(), ids=EVENTS.keys())
def test_only_who_told_it_is_asked_and_the_runner_gets_a_name_alone(
    reactor: salt.utils.reactor.Reactor, tag: str, data: Any, expected: dict[str, Any]
) -> None:
    assert asked(reactor, "dummy_lost.sls", tag, data) == expected


# -------------------------------------------------------------------------------------------------
# A minion has connected

STARTED = "salt/minion/rs1/start"
REAPPLY = {"local.lvs.reapply": {"tgt": ["rs1"], "tgt_type": "list", **AUTOMATIC}}
STARTS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "a minion has connected": (
        STARTED,
        {"id": "rs1", "tag": STARTED, "data": "Minion rs1 started at ...", "cmd": "_minion_event"},
        REAPPLY,
    ),
    "it is told in another one's name": (STARTED, {"id": "rs2"}, NOTHING),
    "a star stands for itself": (
        "salt/minion/*/start",
        {"id": "*"},
        {"local.lvs.reapply": {"tgt": ["*"], "tgt_type": "list", **AUTOMATIC}},
    ),
    "so does a comma": (
        "salt/minion/rs1,rs2/start",
        {"id": "rs1,rs2"},
        {"local.lvs.reapply": {"tgt": ["rs1,rs2"], "tgt_type": "list", **AUTOMATIC}},
    ),
    "an id with a path in it": ("salt/minion/rs1/x/start", {"id": "rs1"}, NOTHING),
    "an id that is no text": ("salt/minion/['rs1']/start", {"id": ["rs1"]}, NOTHING),
    "no id": (STARTED, {"data": "Minion rs1 started"}, NOTHING),
    "no mapping at all": (STARTED, "rs1", NOTHING),
}


@pytest.mark.parametrize(("tag", "data", "expected"), STARTS.values(), ids=STARTS.keys())
def test_only_the_minion_that_has_connected_is_asked_to_look(
    reactor: salt.utils.reactor.Reactor, tag: str, data: Any, expected: dict[str, Any]
) -> None:
    assert asked(reactor, "minion_start.sls", tag, data) == expected


# -------------------------------------------------------------------------------------------------
# A director's VRRP state has changed, or is another one than the last look saw

VRRP = "salt/beacon/lb1/keepalived_vrrp/change"
STAMP = "2027-01-15T07:59:59.500000"
TRANSITION = {"vrrp_instance": "VirtIP_10", "was": "BACKUP", "now": "MASTER"}


def check(minion_id: str = "lb1", stamp: str = "None") -> dict[str, Any]:
    args = [{"minion_id": minion_id}, {"stamp": stamp}]
    return {"runner.lvs.check_mastership": {"args": args}}


TRANSITIONS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "a director has become master": (
        VRRP,
        {"id": "lb1", "changes": [TRANSITION], "_stamp": STAMP},
        check(stamp=STAMP),
    ),
    "it tells a problem": (VRRP, {"id": "lb1", "changes": [{"problem": "it hangs"}]}, check()),
    "a real server has failed": (
        VRRP,
        {"id": "lb1", "changes": [{"virtual_server": "web", "real_server": "rs1", "now": "DOWN"}]},
        NOTHING,
    ),
    "it is told in another one's name": (VRRP, {"id": "lb2", "changes": [TRANSITION]}, NOTHING),
    "a star stands for itself": (
        "salt/beacon/*/keepalived_vrrp/change",
        {"id": "*", "changes": [TRANSITION]},
        check("*"),
    ),
    "an id that is no text": (
        "salt/beacon/['lb1']/keepalived_vrrp/change",
        {"id": ["lb1"], "changes": [TRANSITION]},
        NOTHING,
    ),
    "changes that are no mappings": (VRRP, {"id": "lb1", "changes": ["MASTER", 7]}, NOTHING),
    "no changes": (VRRP, {"id": "lb1"}, NOTHING),
    "no mapping at all": (VRRP, "lb1", NOTHING),
}


@pytest.mark.parametrize(("tag", "data", "expected"), TRANSITIONS.values(), ids=TRANSITIONS.keys())
def test_the_runner_is_told_who_tells_of_vrrp_and_when_and_nothing_else(
    reactor: salt.utils.reactor.Reactor, tag: str, data: Any, expected: dict[str, Any]
) -> None:
    reactions = asked(reactor, "vrrp_transition.sls", tag, data)
    assert reactions == expected
    for reaction in reactions.values():
        # As Salt hands them to the runner.
        assert set(repack_dictlist(reaction["args"])) == {"minion_id", "stamp"}


VIP = "10.10.10.10"


def holding(*held: Any, minion_id: str = "lb1") -> dict[str, Any]:
    return {"id": minion_id, "vrrp_instances": [{"vips_held": list(held)}], "_stamp": STAMP}


SEEN = {"at": 0.0, "vips": [VIP, "10.10.10.11"], "held": [VIP]}
NEWS = check(stamp=STAMP)
# What the last look saw of lb1, and how many seconds ago; what it tells; whether that is a cause.
STATES: dict[str, tuple[Any, float, Any, dict[str, Any]]] = {
    "it holds what it did": (SEEN, 60, holding(VIP), NOTHING),
    "it holds something else besides, which is none of the cluster's": (
        SEEN,
        60,
        holding(VIP, "10.9.9.9", ["10.10.10.11"], None),
        NOTHING,
    ),
    "it holds one more": (SEEN, 60, holding(VIP, "10.10.10.11"), NEWS),
    "it holds nothing": (SEEN, 60, holding(), NEWS),
    "it holds nothing, as before": ({**SEEN, "held": []}, 60, holding(), NOTHING),
    "it was silent": ({**SEEN, "held": None}, 60, holding(), NEWS),
    "nobody has looked": (None, 60, holding(VIP), NEWS),
    "nobody has looked for long": (SEEN, holders.LOOK_EVERY_SECONDS + 1, holding(VIP), NEWS),
    "the clock was set back": (SEEN, -60, holding(VIP), NEWS),
    "it tells no instances": (SEEN, 60, {"id": "lb1", "vrrp_instances": "none"}, check()),
    "it is told in another one's name": (SEEN, 60, holding(minion_id="lb2"), NOTHING),
    "no mapping at all": (SEEN, 60, "lb1", NOTHING),
}


@pytest.mark.parametrize(("seen", "ago", "data", "expected"), STATES.values(), ids=STATES.keys())
def test_a_state_is_a_cause_where_it_is_other_than_the_last_look_saw(
    reactor: salt.utils.reactor.Reactor,
    seen: Any,
    ago: float,
    data: Any,
    expected: dict[str, Any],
) -> None:
    path = Path(reactor.opts["cachedir"]) / "saltext-lvs" / "seen.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {} if seen is None else {"lb1": {**seen, "at": time.time() - ago}}
    path.write_text(json.dumps(known))
    tag = VRRP.replace("change", "state")
    assert asked(reactor, "vrrp_transition.sls", tag, data) == expected


def test_before_the_first_look_a_state_is_a_cause(reactor: salt.utils.reactor.Reactor) -> None:
    path = Path(reactor.opts["cachedir"]) / "saltext-lvs" / "seen.json"
    path.unlink(missing_ok=True)
    tag = VRRP.replace("change", "state")
    assert asked(reactor, "vrrp_transition.sls", tag, holding(VIP)) == NEWS


# -------------------------------------------------------------------------------------------------
# A director has found a real server down

HEALTH = "salt/beacon/lb1/real_server/change"
DOWN = {"virtual_server": "web", "real_server": "rs1", "was": "up", "now": "down"}
LB1 = {"tgt": ["lb1"], "tgt_type": "list"}
REWEIGHT = {"local.lvs.reweight": {**LB1, "args": [{"virtual_server": "web"}, {"automatic": True}]}}
MANY = [{**DOWN, "virtual_server": f"web{number}"} for number in range(11)]
FOUND: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "a real server is down": (HEALTH, {"id": "lb1", "acted": False, "changes": [DOWN]}, REWEIGHT),
    "several of one virtual server are": (
        HEALTH,
        {"id": "lb1", "changes": [DOWN, {**DOWN, "real_server": "rs2"}]},
        REWEIGHT,
    ),
    "the director has done it": (HEALTH, {"id": "lb1", "acted": True, "changes": [DOWN]}, NOTHING),
    "it says so in words": (HEALTH, {"id": "lb1", "acted": "yes", "changes": [DOWN]}, REWEIGHT),
    "keepalived does it": (
        HEALTH,
        {"id": "lb1", "changes": [{**DOWN, "managed_by": "keepalived"}]},
        NOTHING,
    ),
    "so many that all are asked for": (
        HEALTH,
        {"id": "lb1", "changes": MANY},
        {"local.lvs.reweight": {**LB1, **AUTOMATIC}},
    ),
    "it is told in another one's name": (HEALTH, {"id": "lb2", "changes": [DOWN]}, NOTHING),
    "a star stands for itself": (
        "salt/beacon/*/real_server/change",
        {"id": "*", "changes": [{**DOWN, "virtual_server": "*"}]},
        {
            "local.lvs.reweight": {
                "tgt": ["*"],
                "tgt_type": "list",
                "args": [{"virtual_server": "*"}, {"automatic": True}],
            }
        },
    ),
    "a name that is no text": (
        HEALTH,
        {"id": "lb1", "changes": [{**DOWN, "virtual_server": ["web"]}]},
        NOTHING,
    ),
    "changes that are no mappings": (HEALTH, {"id": "lb1", "changes": ["web", None, 7]}, NOTHING),
    "no changes": (HEALTH, {"id": "lb1"}, NOTHING),
    "no mapping at all": (HEALTH, "lb1", NOTHING),
}


@pytest.mark.parametrize(("tag", "data", "expected"), FOUND.values(), ids=FOUND.keys())
def test_a_director_that_has_not_acted_is_asked_to_look_again(
    reactor: salt.utils.reactor.Reactor, tag: str, data: Any, expected: dict[str, Any]
) -> None:
    assert asked(reactor, "real_server.sls", tag, data) == expected


def test_each_virtual_server_is_asked_for(reactor: salt.utils.reactor.Reactor) -> None:
    data = {"id": "lb1", "changes": MANY[:10]}
    chunks = reactor.reactions(HEALTH, data, [str(CHECKOUT / "_reactors" / "real_server.sls")])
    assert sorted(chunk["args"][0]["virtual_server"] for chunk in chunks) == sorted(
        one["virtual_server"] for one in MANY[:10]
    )


# -------------------------------------------------------------------------------------------------
# A VIP is held by one director again

HELD = "lvs/vips/prod/held"
ANNOUNCE_LB1 = {"runner.lvs.announce": {"args": [{"minion_id": "lb1"}]}}
STANDINGS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "one holds it again": (HELD, {"holders": ["lb1"]}, ANNOUNCE_LB1),
    "several hold it": ("lvs/vips/prod/split_brain", {"holders": ["lb1", "lb2"]}, NOTHING),
    "several hold it, and it says otherwise": (HELD, {"holders": ["lb1", "lb2"]}, NOTHING),
    "another tag": ("lvs/vips/prod/x/held", {"holders": ["lb1"]}, NOTHING),
    "a name that is no text": (HELD, {"holders": [["lb1"]]}, NOTHING),
    "no list": (HELD, {"holders": "lb1"}, NOTHING),
    "no mapping": (HELD, ["lb1"], NOTHING),
}


@pytest.mark.parametrize(("tag", "data", "expected"), STANDINGS.values(), ids=STANDINGS.keys())
def test_after_a_split_brain_the_holder_is_asked_to_announce(
    reactor: salt.utils.reactor.Reactor, tag: str, data: Any, expected: dict[str, Any]
) -> None:
    assert asked(reactor, "split_brain.sls", tag, data) == expected
