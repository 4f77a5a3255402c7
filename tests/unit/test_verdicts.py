"""What a real server's state means for its clients, in words; on machines that are made up.

That a real kernel does as it is told here is for the kernel level.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from saltext.lvs import verdicts
from saltext.lvs.errors import InvalidConfig
from saltext.lvs.model import Address, Forward, Protocol, Tunnel, TunnelType
from saltext.lvs.routes import Refusal, Route
from saltext.lvs.rtnetlink import HeldAddress, Link
from saltext.lvs.sockets import Listening
from saltext.lvs.verdicts import ACCEPTED, LISTENING, SOURCE, Client, Machine, Service, Verdict


def address(text: str) -> Address:
    return ipaddress.ip_address(text)


def link(name: str, *addresses: str, **changes: Any) -> Link:
    held = tuple(HeldAddress(ipaddress.ip_interface(text)) for text in addresses)
    return replace(Link(name, "", True, True, held), **changes)


VIP, VIP6, OWN, OWN6 = map(address, ("10.10.10.10", "fd00::10", "10.10.10.41", "fd00::41"))
ETH0 = link("eth0", "10.10.10.41/24", "fd00::41/64", "fe80::41/64")
DUMMY0 = link("dummy0", "10.10.10.10/32", "fd00::10/128", kind="dummy", arp=False)
QUIET = {
    f"/proc/sys/net/ipv4/conf/all/{name}": n
    for name, n in {"arp_ignore": 1, "arp_announce": 2}.items()
}
WEB = Service("web", VIP, 80, Protocol.TCP, Forward.DIRECT, Tunnel(), OWN)
TAKEN, SENT = Route("local", "lo"), Route("unicast", "eth0")
Lookup = Callable[[Address, Address | None, str | None], Route | Refusal]


def kernel(
    coming_in: Route | Refusal = TAKEN,
    leaving: Route | Refusal = SENT,
) -> Lookup:
    """A kernel that says the same of every packet that comes in, and of every one that leaves."""
    return lambda destination, source, interface: coming_in if interface else leaving


def machine(*more: Link, **changes: Any) -> Machine:
    found = Machine("dummy0", ("eth0",), (ETH0, DUMMY0, *more), (), QUIET, lookup=kernel())
    return replace(found, **changes)


def judged(
    service: Service, on: Machine, question: str, *asked: Address
) -> list[tuple[bool | None, str]]:
    answers = verdicts.judge([service], on, asked)[service.name][question]
    return [(verdict.ok, str(verdict)) for verdict in answers]


# --------------------------------------------------------------------------------------------------
# Whom to ask about


CLIENTS = {
    "one in each network and one far away": (
        [ETH0],
        4,
        [],
        [Client(address("10.10.10.1")), Client(address("192.0.2.1"), far=True)],
    ),
    "IPv6 alike, but for link-local ones": (
        [ETH0],
        6,
        [],
        [Client(address("fd00::1")), Client(address("2001:db8::1"), far=True)],
    ),
    "none that is the machine itself": (
        [link("eth0", "10.10.10.1/24", "10.10.10.2/24")],
        4,
        [],
        [Client(address("10.10.10.3")), Client(address("192.0.2.1"), far=True)],
    ),
    "none in a network without room": (
        [link("eth0", "10.10.10.1/31")],
        4,
        [],
        [Client(address("192.0.2.1"), far=True)],
    ),
    "far away is not next door": (
        [link("eth0", "192.0.2.41/24")],
        4,
        [],
        [Client(address("192.0.2.1")), Client(address("198.51.100.1"), far=True)],
    ),
    "those who are named": (
        [ETH0],
        4,
        [address("203.0.113.9"), address("2001:db8::9")],
        [Client(address("203.0.113.9"))],
    ),
    "made-up ones for a family without a named one": (
        [ETH0],
        6,
        [address("203.0.113.9")],
        [Client(address("fd00::1")), Client(address("2001:db8::1"), far=True)],
    ),
}


@pytest.mark.parametrize(("links", "family", "asked", "expected"), CLIENTS.values(), ids=CLIENTS)
def test_clients(
    links: list[Link], family: int, asked: list[Address], expected: list[Client]
) -> None:
    assert [*verdicts.clients(machine(links=tuple(links)), family, asked)] == expected


@pytest.mark.parametrize(
    ("value", "path"), [("nobody", "clients:0"), (["10.0.0.1", 7], "clients:1"), ({}, "clients:0")]
)
def test_a_client_that_is_no_address_is_refused(value: object, path: str) -> None:
    with pytest.raises(InvalidConfig, match=f"^{path} is"):
        verdicts.as_addresses(value)


# --------------------------------------------------------------------------------------------------
# Accepted


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EINVAL], ids=["EXDEV", "EINVAL"])
def test_old_and_new_kernels_words_for_a_filter_are_told_alike(number: int) -> None:
    """Linux 6.13 gave up EXDEV."""
    on = machine(
        lookup=kernel(Refusal(number, True), Route("unicast", "eth1")),
        settings=QUIET | {"/proc/sys/net/ipv4/conf/eth0/rp_filter": 1},
    )
    assert judged(WEB, on, ACCEPTED, address("10.20.20.100")) == [
        (
            False,
            "packets from 10.20.20.100 for 10.10.10.10 that come in by eth0 are dropped: "
            "net.ipv4.conf.eth0.rp_filter is 1, and what answers them leaves by eth1: set "
            "net.ipv4.conf.eth0.rp_filter = 2 (the kernel takes the larger of it and all's)",
        )
    ]


def test_a_packet_that_is_dropped_for_another_reason_is_told_with_the_kernels_word() -> None:
    on = machine(lookup=kernel(Refusal(errno.EINVAL, True)))
    assert judged(WEB, on, ACCEPTED, address("127.0.0.9")) == [
        (
            False,
            "packets from 127.0.0.9 for 10.10.10.10 that come in by eth0 are dropped: the "
            "reverse-path filter drops it, or its source address cannot be right (EINVAL): look at "
            "ip rule and ip route show table all",
        )
    ]


def tunnelled(kind: TunnelType, inner: Address, outer: Address) -> Service:
    port = 5555 if kind is TunnelType.GUE else 0
    return replace(WEB, address=inner, forward=Forward.TUNNEL, tunnel=Tunnel(kind, port), own=outer)


ENDS = {
    "IPv4 in IPv4": (tunnelled(TunnelType.IPIP, VIP, OWN), "ipip", "ipip", "tunl0"),
    "IPv6 in IPv4": (tunnelled(TunnelType.IPIP, VIP6, OWN), "sit", "sit", "sit0"),
    "IPv4 in IPv6": (tunnelled(TunnelType.IPIP, VIP, OWN6), "ip6tnl", "ip6_tunnel", "ip6tnl0"),
    "IPv6 in IPv6": (tunnelled(TunnelType.IPIP, VIP6, OWN6), "ip6tnl", "ip6_tunnel", "ip6tnl0"),
    "GRE over IPv4": (tunnelled(TunnelType.GRE, VIP, OWN), "gre", "ip_gre", "gre0"),
    "GRE over IPv6": (tunnelled(TunnelType.GRE, VIP, OWN6), "ip6gre", "ip6_gre", "ip6gre0"),
}


@pytest.mark.parametrize(("service", "kind", "module", "name"), ENDS.values(), ids=ENDS)
def test_each_kind_of_tunnel_has_an_end_of_its_own(
    service: Service, kind: str, module: str, name: str
) -> None:
    nothing = f"so packets for {service.address} are never unwrapped"
    missing = f"no interface that ends a tunnel of kind {kind} is"
    raising = f"ip link set {name} up"
    end = link(name, kind=kind, up=False, arp=False)
    of = service.address
    assert judged(service, machine(), ACCEPTED) == [
        (False, f"{missing} here, {nothing}: modprobe {module} && {raising}")
    ]
    assert judged(service, machine(end), ACCEPTED) == [
        (False, f"{missing} up, {nothing}: {raising}")
    ]
    taken = (True, f"the kernel takes packets for {of} from {name}")
    assert set(judged(service, machine(replace(end, up=True)), ACCEPTED)) == {taken}
    # One of the operator's own serves as well, but the kernel's own is asked first.
    other = link("mine", kind=kind, arp=False)
    own = (True, f"the kernel takes packets for {of} from mine")
    assert set(judged(service, machine(end, other), ACCEPTED)) == {own}
    assert set(judged(service, machine(replace(end, up=True), other), ACCEPTED)) == {taken}


def test_gue_over_ipv6_wants_a_port_of_ipv6() -> None:
    service = tunnelled(TunnelType.GUE, VIP6, OWN6)
    end = link("ip6tnl0", kind="ip6tnl", arp=False)
    of_ipv4 = (Listening(Protocol.UDP, address("0.0.0.0"), 5555),)
    assert judged(service, machine(end, listeners=of_ipv4), ACCEPTED)[0] == (
        False,
        "nothing takes packets off UDP port 5555, to which directors send them: modprobe fou && "
        "ip fou add port 5555 gue -6",
    )
    of_ipv6 = (Listening(Protocol.UDP, address("::"), 5555, v6only=True),)
    told = judged(service, machine(end, listeners=of_ipv6), ACCEPTED)
    assert {ok for ok, _ in told} == {True}


def test_of_several_interfaces_the_ones_that_are_down_are_passed_over() -> None:
    on = machine(link("eth1", up=False), ingress=("eth0", "eth1"))
    assert {reason for _, reason in judged(WEB, on, ACCEPTED)} == {
        "the kernel takes packets for 10.10.10.10 from eth0"
    }


# --------------------------------------------------------------------------------------------------
# Listening


def heard(
    *where: tuple[str, bool | None], of: Address = VIP, device: str = ""
) -> tuple[bool | None, str]:
    listeners = tuple(Listening(Protocol.TCP, address(a), 80, v, device) for a, v in where)
    (told,) = judged(replace(WEB, address=of), machine(listeners=listeners), LISTENING)
    return told


def test_a_kernel_that_does_not_tell_leaves_a_doubt() -> None:
    assert heard(("::", None)) == (
        None,
        "the service listens on TCP [::]:80, and this kernel does not tell whether that takes IPv4 "
        "too: ask it: a request to 10.10.10.10:80 from this machine itself",
    )
    assert heard(("::", None), ("10.10.10.10", False))[0] is True
    assert heard(("::", None), of=VIP6)[0] is True


def test_everybody_else_on_the_port_is_named() -> None:
    assert heard(("10.10.10.41", False), ("127.0.0.1", False), ("::", True)) == (
        False,
        "nothing listens on TCP 10.10.10.10:80, only on 10.10.10.41:80, 127.0.0.1:80 and [::]:80 "
        "for IPv6 alone: have the service listen on 10.10.10.10, or on every address",
    )


def test_a_service_that_is_bound_to_another_interface_hears_nothing() -> None:
    assert heard(("0.0.0.0", False), device="eth0")[0] is True
    assert heard(("0.0.0.0", False), device="eth1") == (
        False,
        "nothing listens on TCP 10.10.10.10:80, only on 0.0.0.0:80 on eth1: have the service "
        "listen on 10.10.10.10, or on every address",
    )


def test_every_port_is_no_port_to_look_for() -> None:
    assert judged(replace(WEB, port=0), machine(), LISTENING) == [
        (None, "it serves every port, so none can be looked for")
    ]


# --------------------------------------------------------------------------------------------------
# Together


def test_wrong_counts_before_unknown_before_right() -> None:
    right, doubt, wrong = Verdict(True, "a"), Verdict(None, "b", "do"), Verdict(False, "c", "mend")
    assert verdicts.summary((right, doubt, wrong, wrong)) == Verdict(False, "c: mend")
    assert verdicts.summary((right, doubt, right)) == Verdict(None, "b: do")
    assert verdicts.summary((right, right)) == Verdict(True, "a")


def test_warnings_are_doubts_that_something_can_be_done_about() -> None:
    doubts = [Verdict(None, "b", "do"), Verdict(None, "nothing to do"), Verdict(False, "c", "mend")]
    assert verdicts.warnings(doubts, enabled=True) == ["b: do"]
    assert verdicts.warnings([], enabled=False) == [
        "the pillar has this real server disabled: it gives up its VIPs on purpose, and nothing is "
        "asked about them"
    ]


def test_no_default_route_is_no_fault_of_a_named_client() -> None:
    on = machine(lookup=kernel(leaving=Refusal(errno.ENETUNREACH)))
    (near, far) = judged(WEB, on, SOURCE)
    assert (near[0], far[0]) == (False, None)
    (named,) = judged(WEB, on, SOURCE, address("192.0.2.1"))
    assert named == (
        False,
        "no answer from 10.10.10.10 to 192.0.2.1 can leave, because no route leads there "
        "(ENETUNREACH): give this machine a route to its clients",
    )


def test_the_machine_itself_is_no_client_to_ask_about() -> None:
    on = machine(lookup=kernel(leaving=TAKEN))
    assert judged(WEB, on, SOURCE, OWN) == [
        (None, "10.10.10.41 is an address of this machine itself")
    ]
