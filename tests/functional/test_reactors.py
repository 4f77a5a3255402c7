"""What the master's reactors make of an event, under Salt's own reactor without its process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import salt.config
import salt.utils.reactor
from salt.utils.reactor import REACTOR_INTERNAL_KEYWORDS

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
REPAIR = {"local.dummy.repair": {"tgt": ["rs1"], "tgt_type": "list"}}
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
        {"local.dummy.repair": {"tgt": ["*"], "tgt_type": "list"}},
    ),
    "so do a comma and a line's end": (
        "salt/beacon/rs1,rs2\n/dummy/change",
        {"id": "rs1,rs2\n", "changes": [LOST, QUIET]},
        {
            "local.dummy.repair": {"tgt": ["rs1,rs2\n"], "tgt_type": "list"},
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
REAPPLY = {"local.lvs.reapply": {"tgt": ["rs1"], "tgt_type": "list"}}
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
        {"local.lvs.reapply": {"tgt": ["*"], "tgt_type": "list"}},
    ),
    "so does a comma": (
        "salt/minion/rs1,rs2/start",
        {"id": "rs1,rs2"},
        {"local.lvs.reapply": {"tgt": ["rs1,rs2"], "tgt_type": "list"}},
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
