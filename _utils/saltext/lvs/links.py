"""Dummy interfaces and the VIPs on them: plan what to change, and change it.

Interfaces are changed through pyroute2; addresses by :mod:`saltext.lvs.rtnetlink`, twenty times
faster, and many at once: how soon a lost VIP is back is what counts here.

:func:`plan` is a pure function; test mode, apply and the reported changes all use its operations.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import ipaddress
import itertools
import re
import socket
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from saltext.lvs import rtnetlink
from saltext.lvs.errors import InvalidConfig, KernelError, LvsError, NotAvailable
from saltext.lvs.model import Address, Cluster, Interface, Reaction
from saltext.lvs.reading import INTERFACE, as_address
from saltext.lvs.rtnetlink import Link

T = TypeVar("T")

KIND = "dummy"
# What their modules make by themselves under these names: nobody means a dummy interface by them.
MODULES = {"tunl0": "ipip", "ip6tnl0": "ip6_tunnel", "gre0": "ip_gre", "sit0": "sit"}
ATTEMPTS = 3

PREFIX = re.compile("[1-9][0-9]{0,2}")

NO_PYROUTE2 = (
    "pyroute2 is missing from Salt's Python: install it with `salt-pip install pyroute2` (onedir) "
    "or `salt-call --local pip.install pyroute2`"
)


class NotOurs(LvsError):
    """What stands there is not ours to change."""


# -------------------------------------------------------------------------------------------------
# Plan


class Action(enum.Enum):
    """What can be done; the values are words for comments."""

    CREATE = "create dummy interface"
    SET = "bring up, without ARP, dummy interface"
    RAISE = "bring up"
    ADD = "add"
    REMOVE = "remove"
    DELETE = "delete dummy interface"


@dataclass(frozen=True, slots=True)
class Op:
    """One operation on the interface that holds the VIPs.

    address
        The address that comes or goes; ``None`` where the interface itself is meant.

    was
        The state of the interface before it was set or deleted, in words.
    """

    action: Action
    interface: str
    address: Interface | None = None
    was: str | None = None

    def __str__(self) -> str:
        if self.address is None:
            return f"{self.action.value} {self.interface}"
        to_or_from = "to" if self.action is Action.ADD else "from"
        return f"{self.action.value} {self.address} {to_or_from} {self.interface}"


def plan(
    name: str,
    current: Link | None,
    wanted: Sequence[Interface],
    ours: Collection[Interface] = (),
    staying: Collection[Interface] = (),
) -> tuple[Op, ...]:
    """Return the operations that make an interface hold the wanted VIPs.

    It is made if it is not there, and brought up, without ARP. Of other addresses those that bear
    our mark go, and a wanted VIP with another prefix; what somebody else put there stays. New
    addresses come before old ones go. Applying the result and planning again gives nothing.

    name, current
        The interface and what it is now; ``None`` if there is none.

    wanted
        The VIPs, each with a full prefix (:func:`as_vips`).

    ours
        Addresses that count as ours although they do not bear our mark: those that our files have
        had put there at a boot.

    staying
        Addresses that are left for now although they are ours and nobody wants them any more.

    Raises :class:`NotOurs` if the interface is there and VIPs on it would be heard.
    """
    if current is None and is_named_by_kernel(name):
        # Its module makes it; a state before this one may be about to load that.
        return Op(Action.RAISE, name), *(Op(Action.ADD, name, vip) for vip in wanted)
    if current is None:
        return Op(Action.CREATE, name), *(Op(Action.ADD, name, vip) for vip in wanted)
    _expect_quiet(current)
    named = {vip.ip for vip in wanted}
    unwanted = [
        address
        for address in unneeded(current, wanted, ours)
        if address.ip in named or address not in staying
    ]
    # The kernel takes an IPv6 address only once to an interface, whatever its prefix.
    first = {address for address in unwanted if address.version == 6 and address.ip in named}
    return (
        *_setting(current),
        *(Op(Action.REMOVE, name, address) for address in unwanted if address in first),
        *(Op(Action.ADD, name, vip) for vip in lacking(current, wanted)),
        *(Op(Action.REMOVE, name, address) for address in unwanted if address not in first),
    )


def plan_absent(current: Link | None, ours: Collection[Interface], force: bool) -> tuple[Op, ...]:
    """Return the operations that take a dummy interface away, or our addresses from another one.

    ours
        Addresses that may go although they do not bear our mark: the VIPs that the pillar names,
        and those of our files.

    force
        Let all addresses of a dummy interface go, whoever put them there.

    Raises :class:`NotOurs` if it is a dummy interface that holds somebody else's addresses, or is
    one that never holds ours.
    """
    if current is None:
        return ()
    _expect_quiet(current)
    if is_existing(current):
        mine = unneeded(current, (), ours)
        return tuple(Op(Action.REMOVE, current.name, address) for address in mine)
    others = [address for address in foreign(current, ours) if not force]
    if others:
        raise NotOurs(
            f"{current.name} holds {listed(others)}, which saltext-lvs did not put there: "
            "remove that first, or use force=True"
        )
    return (
        *(
            Op(Action.REMOVE, current.name, held.address)
            for held in current.addresses
            if not held.by_kernel
        ),
        Op(Action.DELETE, current.name, was=state(current)),
    )


def foreign(link: Link, wanted: Collection[Interface]) -> tuple[Interface, ...]:
    """The addresses of an interface that are neither wanted nor ours nor the kernel's own."""
    named = {vip.ip for vip in wanted}
    return tuple(
        held.address
        for held in link.addresses
        if not (held.ours or held.by_kernel or held.address.is_loopback or held.address.ip in named)
    )


def lacking(link: Link | None, wanted: Iterable[Interface]) -> tuple[Interface, ...]:
    """The wanted VIPs that an interface does not hold.

    Whether it is up plays no part: an IPv4 VIP works on one that is down, an IPv6 one is not there.
    """
    held = {item.address for item in link.addresses} if link is not None else set()
    return tuple(vip for vip in wanted if vip not in held)


def state(link: Link) -> str:
    """Whether an interface is up, in words."""
    return ("up" if link.up else "down") + (", with ARP" if link.arp else "")


def changes(ops: Iterable[Op]) -> dict[str, dict[str, str | None]]:
    """The operations as Salt reports changes.

    An ``old`` and a ``new`` for the interface's state and for each address's holder; ``None`` is
    "not there".
    """
    found: dict[str, dict[str, str | None]] = {}
    for op in ops:
        if op.action is Action.ADD:
            found[str(op.address)] = {"old": None, "new": op.interface}
        elif op.action is Action.REMOVE:
            found[str(op.address)] = {"old": op.interface, "new": None}
        else:
            new = None if op.action is Action.DELETE else "up"
            found[op.interface] = {"old": op.was, "new": new}
    return found


def module_of(interface: str) -> str | None:
    """The kernel module that an interface of this name needs; None for the loopback."""
    return None if interface == "lo" else MODULES.get(interface, KIND)


def is_existing(link: Link | None) -> bool:
    """Whether an interface is there without us, so that only the VIPs on it are ours."""
    return link is not None and link.kind != KIND


def is_named_by_kernel(name: str) -> bool:
    """Whether an interface of this name is never ours to make."""
    return name == "lo" or name in MODULES


def expect_there(name: str) -> None:
    """Raise :class:`NotOurs` where an interface that only its module makes is not there."""
    if name in MODULES:
        try:
            _index(name)
        except OSError:
            raise NotOurs(f"there is no {name}: `modprobe {MODULES[name]}` makes it") from None


def _expect_quiet(link: Link) -> None:
    """A dummy interface, the loopback, or one that knows no ARP, such as a tunnel's end."""
    if link.kind == KIND or link.loopback or (link.kind and not link.arp):
        return
    kind = f"a {link.kind}" if link.kind else "a physical"
    raise NotOurs(
        f"{link.name} is there already and is {kind} interface, on which this machine would answer "
        "ARP for its VIPs whatever arp_ignore says: take a dummy interface, lo, or a tunnel's end "
        "such as tunl0"
    )


def _setting(current: Link) -> list[Op]:
    """A dummy interface is ours to set; of another one we need no more than that it is up."""
    if current.kind == KIND and (current.arp or not current.up):
        return [Op(Action.SET, current.name, was=state(current))]
    if not current.up:
        return [Op(Action.RAISE, current.name, was=state(current))]
    return []


def unneeded(
    current: Link, wanted: Iterable[Interface], ours: Collection[Interface]
) -> list[Interface]:
    """What should go: ours that nobody wants any more, and a VIP with another prefix."""
    exact = set(wanted)
    named = {vip.ip for vip in exact}
    return [
        held.address
        for held in current.addresses
        if held.address not in exact
        and (held.ours or held.address in ours or held.address.ip in named)
    ]


def listed(addresses: Iterable[Interface]) -> str:
    return ", ".join(map(str, addresses))


# -------------------------------------------------------------------------------------------------
# What should be


@dataclass(frozen=True, slots=True)
class Duty:
    """What a real server must hold.

    cluster
        The cluster's name.

    interface
        The interface that holds the VIPs.

    vips
        The VIPs; none on a machine that is no real server, or is not enabled.

    address
        The real server's own address, where clients and directors are; ``None`` if not known.

    heals
        Whether this machine puts a lost VIP back by itself, without the master.

    enabled
        False for a real server that is to give up its VIPs.

    leaving
        VIPs that it has given up and may hold for a while yet.

    directors
        The directors' own addresses, where known.
    """

    cluster: str
    interface: str
    vips: tuple[Interface, ...]
    address: Address | None = None
    heals: bool = False
    enabled: bool = True
    leaving: tuple[Interface, ...] = ()
    directors: tuple[Address, ...] = ()

    @property
    def has_ipv4(self) -> bool:
        """Whether a VIP is of IPv4: only then ARP plays a part."""
        return any(vip.version == 4 for vip in (*self.vips, *self.leaving))


def duty_of(cluster: Cluster, minion_id: str) -> Duty:
    """What the pillar asks of a minion."""
    real_server = cluster.real_servers.get(minion_id)
    return Duty(
        cluster=cluster.name,
        interface=cluster.vip_interface_of(minion_id),
        vips=cluster.vips_of(minion_id),
        address=real_server.address if real_server else None,
        heals=cluster.reaction is not Reaction.REACTOR,
        enabled=real_server is None or real_server.enabled,
        directors=tuple(
            director.address
            for director in cluster.directors.values()
            if director.address is not None
        ),
    )


def as_interface(value: Any, path: str = "interface") -> str:
    """The name of a network interface."""
    if isinstance(value, str) and INTERFACE.fullmatch(value):
        return value
    raise InvalidConfig(path, value, "the name of a network interface (15 characters at most)")


def as_vips(
    values: Any, path: str = "addresses", force_prefix: bool = False
) -> tuple[Interface, ...]:
    """VIPs from their texts, with or without the full prefix; one text counts as a list of one.

    force_prefix
        Take another prefix as it is.

    Raises :class:`~saltext.lvs.errors.InvalidConfig` for what is no address, or has another prefix.
    """
    if isinstance(values, str):
        values = [values]
    if not isinstance(values, (list, tuple)):
        raise InvalidConfig(path, values, "a list of addresses")
    vips = (_as_vip(value, f"{path}:{index}", force_prefix) for index, value in enumerate(values))
    return tuple(dict.fromkeys(vips))


def _as_vip(value: Any, path: str, force_prefix: bool) -> Interface:
    text, _, prefix = value.partition("/") if isinstance(value, str) else (value, "", "")
    address = as_address(text, path)
    if (
        address.is_unspecified
        or address.is_multicast
        or address.is_loopback
        or address.is_link_local
    ):
        raise InvalidConfig(path, value, "an address that clients can reach")
    if prefix in ("", str(address.max_prefixlen)):
        return ipaddress.ip_interface(address)
    if force_prefix and PREFIX.fullmatch(prefix) and int(prefix) <= address.max_prefixlen:
        return ipaddress.ip_interface(f"{address}/{prefix}")
    raise InvalidConfig(
        path,
        value,
        f"{address}/{address.max_prefixlen}: any other prefix makes a route to its whole "
        "network through the dummy interface, and once the real interface has been down for a "
        "moment, all that this machine sends to its neighbours is lost there (force_prefix takes "
        "it all the same)",
    )


# -------------------------------------------------------------------------------------------------
# Act


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an apply did.

    ops
        The operations that were carried out.

    left
        Operations that are missing again: somebody else takes away what we put there.
    """

    ops: tuple[Op, ...]
    left: tuple[Op, ...] = ()


def apply(replan: Callable[[], tuple[Op, ...]]) -> Outcome:
    """Plan, act, and read again, until nothing is left to do; three times at most.

    replan
        Reads the interface and plans: the kernel is asked each time what is still missing.

    Raises :class:`~saltext.lvs.errors.NotAvailable` without pyroute2,
    :class:`~saltext.lvs.errors.KernelError` for an operation that the kernel refuses. Those before
    it have been carried out, also the other VIPs that were to be added, and the next apply
    completes them.
    """
    done: list[Op] = []
    ops = replan()
    for _ in range(ATTEMPTS):
        if not ops:
            break
        done += carry_out(ops)
        ops = replan()
    return Outcome(tuple(done), ops)


def carry_out(ops: Sequence[Op]) -> list[Op]:
    """Carry out operations in order and return those that changed something."""
    done: list[Op] = []
    refused: KernelError | None = None
    for action, group in itertools.groupby(ops, key=lambda op: op.action):
        # One VIP that the kernel does not take is no reason to be without the others, but nothing
        # goes before all have come.
        if refused is not None and action is not Action.ADD:
            break
        run = list(group)
        for op, number in zip(run, _numbers(action, run), strict=True):
            if not number:
                done.append(op)
            elif number not in CONFLICTS[action]:
                refused = refused or KernelError(str(op), number, _hint(op, number))
                if action is not Action.ADD:
                    break
    if refused is not None:
        raise refused
    return done


# Answers that say "it is not what you read": another writer was there, so plan again.
CONFLICTS = {
    Action.CREATE: {errno.EEXIST},
    Action.SET: {errno.ENODEV},
    Action.RAISE: {errno.ENODEV},
    Action.ADD: {errno.EEXIST, errno.ENODEV},
    Action.REMOVE: {errno.EADDRNOTAVAIL, errno.ENODEV},
    Action.DELETE: {errno.ENODEV},
}


def _numbers(action: Action, run: Sequence[Op]) -> Sequence[int]:
    """Do the same with several interfaces or addresses; an error number for each, 0 for success."""
    if action not in (Action.ADD, Action.REMOVE):
        return [_link_number(op) for op in run]
    change = rtnetlink.add_addresses if action is Action.ADD else rtnetlink.delete_addresses
    numbers: list[int] = []
    for interface, group in itertools.groupby(run, key=lambda op: op.interface):
        addresses = [op.address for op in group if op.address is not None]
        try:
            numbers += change(_index(interface), addresses)
        except OSError as error:
            numbers += [error.errno or errno.EIO] * len(addresses)
    return numbers


def _link_number(op: Op) -> int:
    route_class, refusal = _pyroute2()

    def work() -> int:
        # A new socket each time, closed where it was made: pyroute2's are bound to one thread and
        # one process.
        try:
            with route_class() as route:
                _change_link(route, op)
        except (refusal, OSError) as error:
            return getattr(error, "code", None) or getattr(error, "errno", None) or errno.EIO
        return 0

    return off_loop(work)


def _change_link(route: Any, op: Op) -> None:
    if op.action is Action.CREATE:
        route.link("add", ifname=op.interface, kind=KIND, state="up", arp=False)
    elif op.action is Action.SET:
        route.link("set", index=_index(op.interface), state="up", arp=False)
    elif op.action is Action.RAISE:
        route.link("set", index=_index(op.interface), state="up")
    else:
        route.link("del", index=_index(op.interface))


def _index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:  # without a number before Python 3.13
        raise OSError(errno.ENODEV, f"there is no interface {interface}") from error


def _hint(op: Op, number: int) -> str:
    if number == errno.EPERM:
        return "this needs root (CAP_NET_ADMIN)"
    if op.action is Action.CREATE and number == errno.EOPNOTSUPP:
        return "does the kernel have dummy interfaces? modprobe dummy"
    without_ipv6 = number in (errno.EACCES, errno.EOPNOTSUPP)
    if op.address is not None and op.address.version == 6 and without_ipv6:
        return f"IPv6 is off: net.ipv6.conf.{op.interface}.disable_ipv6"
    return ""


def _pyroute2() -> tuple[Any, type[Exception]]:
    """pyroute2's class for routes and links, and its error.

    Imported only when something is to be done: that takes 0.1 s, and reading needs none of it.
    """
    try:
        from pyroute2 import IPRoute  # type: ignore[import-untyped]
        from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]
    except ImportError as error:
        raise NotAvailable(NO_PYROUTE2) from error
    return IPRoute, NetlinkError


def preload() -> None:
    """Import pyroute2 now, if it is there; it takes 0.1 s, once."""
    with contextlib.suppress(NotAvailable):
        _pyroute2()


def off_loop(work: Callable[[], T]) -> T:
    """Do something that runs an event loop of its own; in a thread if this one runs a loop already.

    pyroute2 refuses to work on a running loop, and the minion's runs beacons.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(work).result()
