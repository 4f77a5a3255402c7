"""The operations that make a dummy interface hold its VIPs: which, and in which order."""

from __future__ import annotations

import asyncio
import ipaddress
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saltext.lvs import links
from saltext.lvs.errors import InvalidConfig, NotAvailable
from saltext.lvs.links import Action, NotOurs, Op
from saltext.lvs.model import Interface
from saltext.lvs.rtnetlink import MARK, HeldAddress, Link

KERNEL_LL = 3


def vip(text: str) -> Interface:
    return ipaddress.ip_interface(text)


def vips(*texts: str) -> tuple[Interface, ...]:
    return tuple(map(vip, texts))


LO = ("127.0.0.1/8", "::1/128")


def loopback(*held: str, up: bool = True) -> Link:
    """The loopback, with the addresses that the kernel gives it and these."""
    own = tuple(HeldAddress(vip(text)) for text in LO)
    more = dummy(*held).addresses
    return Link("lo", "", up, True, (*own, *more), loopback=True)


def dummy(*held: str, up: bool = True, arp: bool = False, kind: str = "dummy") -> Link:
    """A link whose addresses are ours, but for those that begin with ``~``."""
    addresses = tuple(
        HeldAddress(vip(text.lstrip("~")), 0 if text.startswith("~") else MARK) for text in held
    )
    return Link("dummy0", kind, up, arp, addresses)


CASES = {
    "nothing is there: the interface comes first, then its VIPs": (
        None,
        ["10.10.10.10/32", "2001:db8::10/128"],
        [
            "create dummy interface dummy0",
            "add 10.10.10.10/32 to dummy0",
            "add 2001:db8::10/128 to dummy0",
        ],
    ),
    "nothing is there and nothing is wanted on it: it is there all the same": (
        None,
        [],
        ["create dummy interface dummy0"],
    ),
    "all is as it should be": (dummy("10.10.10.10/32"), ["10.10.10.10/32"], []),
    "a VIP that somebody else put there serves as well as ours": (
        dummy("~10.10.10.10/32"),
        ["10.10.10.10/32"],
        [],
    ),
    "what lacks is added": (
        dummy("10.10.10.10/32"),
        ["10.10.10.10/32", "10.10.10.11/32"],
        ["add 10.10.10.11/32 to dummy0"],
    ),
    "ours that is no longer wanted goes after the new one has come": (
        dummy("10.10.10.10/32"),
        ["10.10.10.11/32"],
        ["add 10.10.10.11/32 to dummy0", "remove 10.10.10.10/32 from dummy0"],
    ),
    "what somebody else put there stays": (
        dummy("~192.0.2.7/24", "~fd00::7/64"),
        ["10.10.10.10/32"],
        ["add 10.10.10.10/32 to dummy0"],
    ),
    "the VIP with the guide's prefix is replaced, and held all the while": (
        dummy("~10.10.10.10/24"),
        ["10.10.10.10/32"],
        ["add 10.10.10.10/32 to dummy0", "remove 10.10.10.10/24 from dummy0"],
    ),
    "an IPv6 VIP with another prefix must go before it can come": (
        dummy("~fd00::10/64", "10.10.10.9/32"),
        ["fd00::10/128", "10.10.10.10/32"],
        [
            "remove fd00::10/64 from dummy0",
            "add fd00::10/128 to dummy0",
            "add 10.10.10.10/32 to dummy0",
            "remove 10.10.10.9/32 from dummy0",
        ],
    ),
    "an interface that is down is brought up before its VIPs come": (
        dummy("10.10.10.10/32", up=False),
        ["10.10.10.10/32", "2001:db8::10/128"],
        ["bring up, without ARP, dummy interface dummy0", "add 2001:db8::10/128 to dummy0"],
    ),
    "ARP is switched off": (
        dummy("10.10.10.10/32", arp=True),
        ["10.10.10.10/32"],
        ["bring up, without ARP, dummy interface dummy0"],
    ),
    "the loopback keeps what it has, and ARP as it is": (
        loopback("10.10.10.9/32", "~192.0.2.1/32"),
        ["10.10.10.10/32"],
        ["add 10.10.10.10/32 to dummy0", "remove 10.10.10.9/32 from dummy0"],
    ),
    "a tunnel's end is brought up and nothing else": (
        dummy("10.10.10.10/32", up=False, kind="ipip"),
        ["10.10.10.10/32"],
        ["bring up dummy0"],
    ),
    "the last VIP goes, the interface stays": (
        dummy("10.10.10.10/32"),
        [],
        ["remove 10.10.10.10/32 from dummy0"],
    ),
}


@pytest.mark.parametrize(("current", "wanted", "expected"), CASES.values(), ids=CASES.keys())
def test_plan(current: Link | None, wanted: list[str], expected: list[str]) -> None:
    assert [str(op) for op in links.plan("dummy0", current, vips(*wanted))] == expected


def test_what_stays_for_now_stays_but_not_with_another_prefix() -> None:
    held = dummy("10.10.10.9/32", "10.10.10.10/24", "10.10.10.11/32")
    planned = links.plan(
        "dummy0", held, vips("10.10.10.10/32"), staying=[item.address for item in held.addresses]
    )
    assert [str(op) for op in planned] == [
        "add 10.10.10.10/32 to dummy0",
        "remove 10.10.10.10/24 from dummy0",
    ]


@pytest.mark.parametrize(
    ("kind", "words"),
    [("bridge", "a bridge interface"), ("", "a physical interface")],
    ids=["a bridge", "a network card"],
)
def test_an_interface_on_which_vips_would_be_heard_is_never_touched(kind: str, words: str) -> None:
    other = dummy(kind=kind, arp=True)
    expected = (
        f"dummy0 is there already and is {words}, on which this machine would answer ARP for its "
        "VIPs whatever arp_ignore says: take a dummy interface, lo, or a tunnel's end such as tunl0"
    )
    with pytest.raises(NotOurs) as planned:
        links.plan("dummy0", other, vips("10.10.10.10/32"))
    with pytest.raises(NotOurs) as planned_absent:
        links.plan_absent(other, (), force=True)
    assert [str(planned.value), str(planned_absent.value)] == [expected, expected]


def test_what_our_files_put_there_at_a_boot_counts_as_ours() -> None:
    booted = dummy("~10.10.10.10/32", "~10.10.10.11/32", "~192.0.2.7/24")
    ours = vips("10.10.10.10/32", "10.10.10.11/32")
    planned = links.plan("dummy0", booted, ours[:1], ours)
    assert [str(op) for op in planned] == ["remove 10.10.10.11/32 from dummy0"]
    assert links.plan("dummy0", booted, ours, ours) == ()


ABSENT = {
    "nothing is there": (None, [], False, []),
    "ours goes with the interface": (
        dummy("10.10.10.10/32"),
        [],
        False,
        ["remove 10.10.10.10/32 from dummy0", "delete dummy interface dummy0"],
    ),
    "a VIP of the pillar goes even if it bears no mark, as after a reboot": (
        dummy("~10.10.10.10/32"),
        ["10.10.10.10/32"],
        False,
        ["remove 10.10.10.10/32 from dummy0", "delete dummy interface dummy0"],
    ),
    "of the loopback only ours goes, also with force": (
        loopback("10.10.10.10/32", "~192.0.2.1/32"),
        [],
        True,
        ["remove 10.10.10.10/32 from lo"],
    ),
    "with force everything goes": (
        dummy("~192.0.2.7/24"),
        [],
        True,
        ["remove 192.0.2.7/24 from dummy0", "delete dummy interface dummy0"],
    ),
}


@pytest.mark.parametrize(
    ("current", "ours", "force", "expected"), ABSENT.values(), ids=ABSENT.keys()
)
def test_plan_absent(
    current: Link | None, ours: list[str], force: bool, expected: list[str]
) -> None:
    assert [str(op) for op in links.plan_absent(current, vips(*ours), force)] == expected


@pytest.mark.parametrize(("name", "module"), links.MODULES.items())
def test_no_dummy_interface_gets_the_name_of_a_tunnels_end(name: str, module: str) -> None:
    planned = links.plan(name, None, vips("10.10.10.10/32"))
    assert [str(op) for op in planned] == [f"bring up {name}", f"add 10.10.10.10/32 to {name}"]
    with pytest.raises(NotOurs, match=f"^there is no {name}: `modprobe {module}` makes it$"):
        links.expect_there(name)


def test_an_interface_with_somebody_elses_address_is_not_taken_away() -> None:
    with pytest.raises(NotOurs) as caught:
        links.plan_absent(dummy("10.10.10.10/32", "~192.0.2.7/24"), (), force=False)
    assert str(caught.value) == (
        "dummy0 holds 192.0.2.7/24, which saltext-lvs did not put there: remove that first, "
        "or use force=True"
    )


def test_the_kernels_own_addresses_are_nobodys_business() -> None:
    by_kernel = HeldAddress(vip("fe80::1/64"), KERNEL_LL)
    unmarked = HeldAddress(vip("fe80::2/64"))  # as kernels before 5.18 tell it
    link = replace(dummy("10.10.10.10/32"), addresses=(by_kernel, unmarked))
    assert links.foreign(link, ()) == ()
    assert links.plan("dummy0", link, ()) == ()
    assert [str(op) for op in links.plan_absent(link, (), force=False)] == [
        "delete dummy interface dummy0"
    ]


def test_changes_name_the_interfaces_state_and_each_address_holder() -> None:
    created = links.plan("dummy0", None, vips("10.10.10.10/32"))
    assert links.changes(created) == {
        "dummy0": {"old": None, "new": "up"},
        "10.10.10.10/32": {"old": None, "new": "dummy0"},
    }
    raised = links.plan("dummy0", dummy("10.10.10.9/32", up=False, arp=True), ())
    assert links.changes(raised) == {
        "dummy0": {"old": "down, with ARP", "new": "up"},
        "10.10.10.9/32": {"old": "dummy0", "new": None},
    }
    taken = links.plan_absent(dummy("10.10.10.10/32"), (), force=False)
    assert links.changes(taken) == {
        "10.10.10.10/32": {"old": "dummy0", "new": None},
        "dummy0": {"old": "up", "new": None},
    }


# -------------------------------------------------------------------------------------------------
# Laws


def carried_out(link: Link | None, op: Op) -> Link | None:
    """What the kernel makes of one operation: as strict as it is."""
    if op.action is Action.CREATE:
        assert link is None, "File exists"
        return Link(op.interface)
    assert link is not None, "No such device"
    if op.action is Action.DELETE:
        return None
    if op.action is Action.SET:
        return replace(link, up=True, arp=False)
    assert op.address is not None
    if op.action is Action.ADD:
        same = [held for held in link.addresses if _clash(held.address, op.address)]
        assert not same, "File exists"
        return replace(link, addresses=(*link.addresses, HeldAddress(op.address, MARK)))
    kept = tuple(held for held in link.addresses if held.address != op.address)
    assert len(kept) < len(link.addresses), "Cannot assign requested address"
    return replace(link, addresses=kept)


def _clash(held: Interface, new: Interface) -> bool:
    """IPv6 has an address once on an interface, IPv4 once for each prefix."""
    return held.ip == new.ip and (new.version == 6 or held == new)


def after(link: Link | None, ops: Sequence[Op]) -> Link | None:
    for op in ops:
        link = carried_out(link, op)
    return link


# Few addresses, so that tables meet.
V4 = st.builds(
    lambda last, prefix: vip(f"10.10.10.{last}/{prefix}"),
    st.integers(1, 4),
    st.sampled_from([24, 32]),
)
V6 = st.builds(
    lambda last, prefix: vip(f"fd00::{last}/{prefix}"),
    st.integers(1, 4),
    st.sampled_from([64, 128]),
)
MARKS = st.sampled_from([0, MARK, 4])
HELD = st.one_of(
    st.builds(HeldAddress, V4, MARKS),
    st.builds(HeldAddress, V6, MARKS),
    st.just(HeldAddress(vip("fe80::1/64"), KERNEL_LL)),
)
TABLES = st.lists(
    HELD, unique_by=lambda held: held.address if held.address.version == 4 else held.address.ip
)
LINKS = st.builds(
    lambda held, up, arp: Link("dummy0", "dummy", up, arp, tuple(held)),
    TABLES,
    st.booleans(),
    st.booleans(),
)
FULL = st.one_of(V4, V6).map(lambda address: vip(f"{address.ip}/{address.max_prefixlen}"))
WANTED = st.lists(FULL, unique=True).map(tuple)


@given(st.none() | LINKS, WANTED)
def test_what_is_planned_makes_it_so(link: Link | None, wanted: tuple[Interface, ...]) -> None:
    result = after(link, links.plan("dummy0", link, wanted))
    assert result is not None
    assert (result.up, result.arp) == (True, False)
    assert links.lacking(result, wanted) == ()
    assert links.plan("dummy0", result, wanted) == ()


@given(LINKS, WANTED)
def test_nothing_of_somebody_else_goes_and_nothing_of_ours_stays(
    link: Link, wanted: tuple[Interface, ...]
) -> None:
    result = after(link, links.plan("dummy0", link, wanted))
    assert result is not None
    named = {address.ip for address in wanted}
    foreign = {held for held in link.addresses if not held.ours and held.address.ip not in named}
    assert foreign == {h for h in result.addresses if not h.ours and h.address.ip not in named}
    assert {h.address for h in result.addresses} == {h.address for h in foreign} | set(wanted)


@given(LINKS, WANTED)
def test_an_ipv4_vip_that_is_held_is_held_all_the_while(
    link: Link | None, wanted: tuple[Interface, ...]
) -> None:
    assert link is not None
    held = {h.address.ip for h in link.addresses}
    safe = {address.ip for address in wanted if address.version == 4} & held
    for op in links.plan("dummy0", link, wanted):
        link = carried_out(link, op)
        assert link is not None
        assert safe <= {h.address.ip for h in link.addresses}


@given(st.none() | LINKS, WANTED)
def test_the_changes_are_the_difference_between_before_and_after(
    link: Link | None, wanted: tuple[Interface, ...]
) -> None:
    ops = links.plan("dummy0", link, wanted)
    before, later = _holders(link), _holders(after(link, ops))
    expected = {
        key: {"old": before.get(key), "new": later.get(key)}
        for key in {*before, *later}
        if before.get(key) != later.get(key)
    }
    assert links.changes(ops) == expected


@given(LINKS, WANTED)
def test_taking_away_with_force_leaves_nothing(link: Link, wanted: tuple[Interface, ...]) -> None:
    assert after(link, links.plan_absent(link, wanted, force=True)) is None


def _holders(link: Link | None) -> dict[str, str]:
    """What changes speak of: the interface's state, and who holds each address."""
    if link is None:
        return {}
    held = {str(held.address): link.name for held in link.addresses if not held.by_kernel}
    return {link.name: links.state(link), **held}


# -------------------------------------------------------------------------------------------------
# What callers give


VIPS = {
    "one text": ("10.10.10.10", ["10.10.10.10/32"]),
    "a list, each once": (["10.10.10.10", "10.10.10.10/32"], ["10.10.10.10/32"]),
    "IPv6 in any spelling": (["2001:DB8:0::10"], ["2001:db8::10/128"]),
    "an empty list": ([], []),
}


@pytest.mark.parametrize(("given_", "expected"), VIPS.values(), ids=VIPS.keys())
def test_vips_from_texts(given_: Any, expected: list[str]) -> None:
    assert [str(address) for address in links.as_vips(given_)] == expected


NO_VIPS = {
    "a /24, as in the guide": (
        ["10.10.10.11", "10.10.10.10/24"],
        "addresses:1 is '10.10.10.10/24'; it should be 10.10.10.10/32: any other prefix makes a "
        "route to its whole network through the dummy interface, and once the real interface has "
        "been down for a moment, all that this machine sends to its neighbours is lost there "
        "(force_prefix takes it all the same)",
    ),
    "a word": (
        ["web"],
        "addresses:0 is 'web'; it should be an IPv4 or IPv6 address such as 10.10.10.10",
    ),
    "a number": (7, "addresses is 7; it should be a list of addresses"),
    "the loopback address": (
        ["127.0.0.1"],
        "addresses:0 is '127.0.0.1'; it should be an address that clients can reach",
    ),
    "a multicast address": (
        ["ff02::1"],
        "addresses:0 is 'ff02::1'; it should be an address that clients can reach",
    ),
    "an address of one link only": (
        ["fe80::1%eth0"],
        "addresses:0 is 'fe80::1%eth0'; it should be an address that clients can reach",
    ),
}


@pytest.mark.parametrize(("given_", "expected"), NO_VIPS.values(), ids=NO_VIPS.keys())
def test_what_is_no_vip_is_refused(given_: Any, expected: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        links.as_vips(given_)
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    "name", ["", "sixteen-letters-", "a/b", "a b", 7], ids=["empty", "long", "/", "space", "number"]
)
def test_what_is_no_interface_is_refused(name: Any) -> None:
    with pytest.raises(InvalidConfig):
        links.as_interface(name)


# -------------------------------------------------------------------------------------------------
# Acting


class Machine:
    """A dummy interface in memory, and somebody who works against us after each round."""

    def __init__(self, link: Link | None, *spoils: str) -> None:
        self.link = link
        self.spoils = list(spoils)

    def plan(self) -> tuple[Op, ...]:
        return links.plan("dummy0", self.link, vips("10.10.10.10/32"))

    def carry_out(self, ops: Sequence[Op]) -> list[Op]:
        self.link = after(self.link, ops)
        if self.spoils:
            self.link = None if self.spoils.pop(0) == "delete" else dummy()
        return list(ops)


@pytest.mark.parametrize(
    ("spoils", "rounds", "left"),
    [
        ([], 1, []),
        (["delete"], 2, []),
        (["remove"] * 3, 3, ["add 10.10.10.10/32 to dummy0"]),
    ],
    ids=["nobody", "somebody, once", "somebody, always"],
)
def test_what_somebody_takes_away_is_put_back_but_not_for_ever(
    spoils: list[str], rounds: int, left: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(None, *spoils)
    monkeypatch.setattr(links, "carry_out", machine.carry_out)
    outcome = links.apply(machine.plan)
    added = [op for op in outcome.ops if op.action is Action.ADD]
    assert (len(added), [str(op) for op in outcome.left]) == (rounds, left)


def test_nothing_to_do_needs_no_pyroute2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyroute2", None)
    machine = Machine(dummy("10.10.10.10/32"))
    assert links.apply(machine.plan) == links.Outcome(())


def test_without_pyroute2_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyroute2", None)
    with pytest.raises(NotAvailable) as caught:
        links.apply(Machine(None).plan)
    assert str(caught.value) == (
        "pyroute2 is missing from Salt's Python: install it with `salt-pip install pyroute2` "
        "(onedir) or `salt-call --local pip.install pyroute2`"
    )


def test_work_leaves_a_running_event_loop_for_a_thread_of_its_own() -> None:
    async def on_the_loop() -> str:
        return links.off_loop(lambda: threading.current_thread().name)

    assert links.off_loop(lambda: threading.current_thread().name) == "MainThread"
    assert asyncio.run(on_the_loop()) != "MainThread"
