"""Virtual servers and real servers as the kernel's bytes: packed, repacked, unpacked.

The packed form is the run of netlink attributes that the kernel both writes and takes, in one fixed
order, so that equal settings are equal bytes. Names and numbers are those of ``linux/ip_vs.h``.
Nothing here talks to a kernel; messages and sockets are ``ipvs.py``'s.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from saltext.lvs.model import (
    Address,
    Forward,
    Protocol,
    RealServer,
    RealServerKey,
    TunnelChecksum,
    TunnelType,
    VirtualServer,
    VirtualServerKey,
    in_order,
)
from saltext.lvs.netlink import NLATTR, U32, MalformedMessage, attribute, attributes, number

# --------------------------------------------------------------------------------------------------
# Numbers of linux/ip_vs.h

IPVS_SVC_ATTR_AF = 1
IPVS_SVC_ATTR_PROTOCOL = 2
IPVS_SVC_ATTR_ADDR = 3
IPVS_SVC_ATTR_PORT = 4
IPVS_SVC_ATTR_FWMARK = 5
IPVS_SVC_ATTR_SCHED_NAME = 6
IPVS_SVC_ATTR_FLAGS = 7
IPVS_SVC_ATTR_TIMEOUT = 8
IPVS_SVC_ATTR_NETMASK = 9
IPVS_SVC_ATTR_STATS = 10
IPVS_SVC_ATTR_PE_NAME = 11
IPVS_SVC_ATTR_STATS64 = 12
IPVS_DEST_ATTR_ADDR = 1
IPVS_DEST_ATTR_PORT = 2
IPVS_DEST_ATTR_FWD_METHOD = 3
IPVS_DEST_ATTR_WEIGHT = 4
IPVS_DEST_ATTR_U_THRESH = 5
IPVS_DEST_ATTR_L_THRESH = 6
IPVS_DEST_ATTR_ACTIVE_CONNS = 7
IPVS_DEST_ATTR_INACT_CONNS = 8
IPVS_DEST_ATTR_PERSIST_CONNS = 9
IPVS_DEST_ATTR_STATS = 10
IPVS_DEST_ATTR_ADDR_FAMILY = 11
IPVS_DEST_ATTR_STATS64 = 12
IPVS_DEST_ATTR_TUN_TYPE = 13
IPVS_DEST_ATTR_TUN_PORT = 14
IPVS_DEST_ATTR_TUN_FLAGS = 15
IP_VS_SVC_F_PERSISTENT = 0x1
IP_VS_SVC_F_HASHED = 0x2
IP_VS_SVC_F_ONEPACKET = 0x4
IP_VS_SVC_F_SCHED = 0x38
IP_VS_CONN_F_FWD_MASK = 0x7

PROTOCOL_NUMBERS = {
    Protocol.TCP: int(socket.IPPROTO_TCP),
    Protocol.UDP: int(socket.IPPROTO_UDP),
    Protocol.SCTP: int(socket.IPPROTO_SCTP),
}
PROTOCOLS = {number: protocol for protocol, number in PROTOCOL_NUMBERS.items()}
FAMILY_NUMBERS = {4: int(socket.AF_INET), 6: int(socket.AF_INET6)}
FAMILIES = {number: family for family, number in FAMILY_NUMBERS.items()}
# IP_VS_CONN_F_MASQ, _LOCALNODE, _TUNNEL and _DROUTE
FORWARD_NUMBERS = {Forward.MASQ: 0, Forward.LOCAL: 1, Forward.TUNNEL: 2, Forward.DIRECT: 3}
FORWARDS = {number: forward for forward, number in FORWARD_NUMBERS.items()}
# IP_VS_CONN_F_TUNNEL_TYPE_IPIP, _GUE and _GRE
TUNNEL_TYPE_NUMBERS = {TunnelType.IPIP: 0, TunnelType.GUE: 1, TunnelType.GRE: 2}
TUNNEL_TYPES = {number: kind for kind, number in TUNNEL_TYPE_NUMBERS.items()}
# IP_VS_TUNNEL_ENCAP_FLAG_NOCSUM, _CSUM and _REMCSUM
CHECKSUM_FLAGS = {TunnelChecksum.NONE: 0, TunnelChecksum.FULL: 1, TunnelChecksum.REMOTE: 2}
CHECKSUMS = {flags: checksum for checksum, flags in CHECKSUM_FLAGS.items()}

U16 = struct.Struct("=H")
BE16 = struct.Struct("!H")
FLAGS = struct.Struct("=LL")

# --------------------------------------------------------------------------------------------------
# Packed


class Packed(NamedTuple):
    """A virtual server as bytes; its key is the key of the mapping that it stands in.

    settings
        Its attributes behind the key, in the order in which the kernel writes them.

    real_servers
        The same for its real servers: settings by key.
    """

    settings: bytes
    real_servers: dict[bytes, bytes]


PackedTable = dict[bytes, Packed]

# What follows is written by hand for speed: attributes of fixed length in the kernel's order
# (ip_vs_genl_fill_dest in net/netfilter/ipvs/ip_vs_ctl.c), each behind its length and kind.
_ADDRESS_KEY = struct.Struct("=HHHxx HHHxx HH16s HH2sxx")
_REAL_KEY = struct.Struct("=HHHxx HH16s HH2sxx")
_REAL_KEY_HEADERS = (
    *(6, IPVS_DEST_ATTR_ADDR_FAMILY),
    *(20, IPVS_DEST_ATTR_ADDR),
    *(6, IPVS_DEST_ATTR_PORT),
)
_REAL_SETTINGS = struct.Struct("=HHL HHL HHBxxx HH2sxx HHHxx HHL HHL")
_REAL_SETTINGS_HEADERS = (
    *(8, IPVS_DEST_ATTR_FWD_METHOD),
    *(8, IPVS_DEST_ATTR_WEIGHT),
    *(5, IPVS_DEST_ATTR_TUN_TYPE),
    *(6, IPVS_DEST_ATTR_TUN_PORT),
    *(6, IPVS_DEST_ATTR_TUN_FLAGS),
    *(8, IPVS_DEST_ATTR_U_THRESH),
    *(8, IPVS_DEST_ATTR_L_THRESH),
)
_COUNTERS = struct.Struct("=HHL HHL HHL")
_COUNTERS_HEADERS = (
    *(8, IPVS_DEST_ATTR_ACTIVE_CONNS),
    *(8, IPVS_DEST_ATTR_INACT_CONNS),
    *(8, IPVS_DEST_ATTR_PERSIST_CONNS),
)
_FAMILY_AT = 4 if sys.byteorder == "little" else 5
_WEIGHT_AT = 12
REAL_KEY_BYTES = _REAL_KEY.size
REAL_SETTINGS_BYTES = _REAL_SETTINGS.size


def pack_key(key: VirtualServerKey) -> bytes:
    """The attributes by which the kernel finds a virtual server."""
    if key.protocol is None or key.address is None:
        return attribute(IPVS_SVC_ATTR_AF, U16.pack(FAMILY_NUMBERS[key.family])) + attribute(
            IPVS_SVC_ATTR_FWMARK, U32.pack(key.fwmark)
        )
    return pack_address_key(key.family, key.protocol, key.address.packed, key.port)


def pack_address_key(family: int, protocol: Protocol, address: bytes, port: int) -> bytes:
    """The same from a packed address: what parses many of them needs no typed one."""
    return _ADDRESS_KEY.pack(
        *(6, IPVS_SVC_ATTR_AF, FAMILY_NUMBERS[family]),
        *(6, IPVS_SVC_ATTR_PROTOCOL, PROTOCOL_NUMBERS[protocol]),
        *(20, IPVS_SVC_ATTR_ADDR, address),
        *(6, IPVS_SVC_ATTR_PORT, BE16.pack(port)),
    )


def family_of(key: bytes) -> int:
    """The address family, 4 or 6, of a packed key: it comes first in any."""
    return 6 if key[_FAMILY_AT] == FAMILY_NUMBERS[6] else 4


def pack_settings(server: VirtualServer) -> bytes:
    """All settings of a virtual server: a SET resets what it leaves out to its default."""
    flags = server.scheduler_flags & IP_VS_SVC_F_SCHED
    if server.persistence:
        flags |= IP_VS_SVC_F_PERSISTENT
    if server.one_packet:
        flags |= IP_VS_SVC_F_ONEPACKET
    engine = server.persistence_engine
    return b"".join(
        (
            attribute(IPVS_SVC_ATTR_SCHED_NAME, server.scheduler.encode() + b"\0"),
            attribute(IPVS_SVC_ATTR_PE_NAME, engine.encode() + b"\0") if engine else b"",
            attribute(IPVS_SVC_ATTR_FLAGS, FLAGS.pack(flags, 0xFFFFFFFF)),
            attribute(IPVS_SVC_ATTR_TIMEOUT, U32.pack(server.persistence)),
            attribute(IPVS_SVC_ATTR_NETMASK, pack_netmask(server.netmask, server.key.family)),
        )
    )


def pack_netmask(prefix: int, family: int) -> bytes:
    """An address mask for IPv4, but a prefix length in host order for IPv6."""
    if family == 6:
        return U32.pack(prefix)
    return ipaddress.IPv4Network((0, prefix)).netmask.packed


def pack_real_key(key: RealServerKey) -> bytes:
    """The attributes by which the kernel finds a real server of a virtual server."""
    return pack_real_address_key(key.address.version, key.address.packed, key.port)


def pack_real_address_key(family: int, address: bytes, port: int) -> bytes:
    """The same from a packed address."""
    return _REAL_KEY.pack(
        *(6, IPVS_DEST_ATTR_ADDR_FAMILY, FAMILY_NUMBERS[family]),
        *(20, IPVS_DEST_ATTR_ADDR, address),
        *(6, IPVS_DEST_ATTR_PORT, BE16.pack(port)),
    )


def pack_real_settings(server: RealServer) -> bytes:
    """All settings of a real server."""
    return _REAL_SETTINGS.pack(
        *(8, IPVS_DEST_ATTR_FWD_METHOD, FORWARD_NUMBERS[server.forward]),
        *(8, IPVS_DEST_ATTR_WEIGHT, server.weight),
        *(5, IPVS_DEST_ATTR_TUN_TYPE, TUNNEL_TYPE_NUMBERS[server.tunnel_type]),
        *(6, IPVS_DEST_ATTR_TUN_PORT, BE16.pack(server.tunnel_port)),
        *(6, IPVS_DEST_ATTR_TUN_FLAGS, CHECKSUM_FLAGS[server.tunnel_checksum]),
        *(8, IPVS_DEST_ATTR_U_THRESH, server.upper_threshold),
        *(8, IPVS_DEST_ATTR_L_THRESH, server.lower_threshold),
    )


def weight_of(settings: bytes) -> int:
    """The weight within a real server's packed settings."""
    return int(U32.unpack_from(settings, _WEIGHT_AT)[0])


def same_real_server(have: bytes, want: bytes) -> bool:
    """Whether the kernel's real server is the wanted one, by their packed settings.

    For an address of the director itself the kernel answers "local" whatever forwarding was asked
    for (__ip_vs_update_dest in net/netfilter/ipvs/ip_vs_ctl.c).
    """
    return have == want or (have.startswith(_LOCAL) and _unforced(have) == _unforced(want))


_LOCAL = attribute(IPVS_DEST_ATTR_FWD_METHOD, U32.pack(FORWARD_NUMBERS[Forward.LOCAL]))


def _unforced(settings: bytes) -> tuple[bytes, bytes]:
    """Weight and thresholds: what the kernel does not decide by itself."""
    return settings[8:16], settings[-16:]


# --------------------------------------------------------------------------------------------------
# From the kernel's attributes, in whatever order it writes them


def repack_virtual_server(data: bytes) -> tuple[bytes, bytes]:
    """Key and settings of a virtual server, from the attributes of IPVS_CMD_ATTR_SERVICE.

    Counters, and attributes that a newer kernel adds, are passed over.
    """
    found = dict(attributes(data))
    if IPVS_SVC_ATTR_FWMARK in found:
        key = _reordered(found, (IPVS_SVC_ATTR_AF, 2), (IPVS_SVC_ATTR_FWMARK, 4))
    else:
        key = _reordered(
            found,
            (IPVS_SVC_ATTR_AF, 2),
            (IPVS_SVC_ATTR_PROTOCOL, 2),
            (IPVS_SVC_ATTR_ADDR, 16),
            (IPVS_SVC_ATTR_PORT, 2),
        )
    flags = number(FLAGS, found, IPVS_SVC_ATTR_FLAGS) & ~IP_VS_SVC_F_HASHED
    # A kernel keeps the time of a persistence that was switched off; it means nothing then.
    persistence = number(U32, found, IPVS_SVC_ATTR_TIMEOUT) if flags & 1 else 0
    engine = _text(found, IPVS_SVC_ATTR_PE_NAME)
    settings = (
        attribute(IPVS_SVC_ATTR_SCHED_NAME, _text(found, IPVS_SVC_ATTR_SCHED_NAME) + b"\0"),
        attribute(IPVS_SVC_ATTR_PE_NAME, engine + b"\0") if engine else b"",
        attribute(IPVS_SVC_ATTR_FLAGS, FLAGS.pack(flags, 0xFFFFFFFF)),
        attribute(IPVS_SVC_ATTR_TIMEOUT, U32.pack(persistence)),
        _reordered(found, (IPVS_SVC_ATTR_NETMASK, 4)),
    )
    return key, b"".join(settings)


def repack_real_server(data: bytes, family: int) -> tuple[bytes, bytes, bytes]:
    """Key, settings and connection counters of a real server, from the attributes of
    IPVS_CMD_ATTR_DEST.

    family
        The number of its virtual server's, for kernels that do not tell a real server's own (before
        Linux 3.18). What else an older kernel does not tell, it does not know: 0.
    """
    found = {
        IPVS_DEST_ATTR_ADDR_FAMILY: U16.pack(family),
        **_REAL_SETTINGS_UNSAID,
        **dict(attributes(data)),
    }
    method = number(U32, found, IPVS_DEST_ATTR_FWD_METHOD) & IP_VS_CONN_F_FWD_MASK
    found[IPVS_DEST_ATTR_FWD_METHOD] = U32.pack(method)
    return (
        _reordered(found, *_pairs(_REAL_KEY_HEADERS)),
        _reordered(found, *_pairs(_REAL_SETTINGS_HEADERS)),
        _reordered(found, *_pairs(_COUNTERS_HEADERS)),
    )


def _pairs(headers: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Kind and payload bytes of each attribute, from their headers."""
    return ((headers[at + 1], headers[at] - 4) for at in range(0, len(headers), 2))


_REAL_SETTINGS_UNSAID = {
    kind: bytes(size) for kind, size in _pairs(_REAL_SETTINGS_HEADERS + _COUNTERS_HEADERS)
}


def _reordered(found: Mapping[int, bytes], *wanted: tuple[int, int]) -> bytes:
    """These attributes, in this order and with these payload bytes."""
    for kind, size in wanted:
        if len(found.get(kind, b"")) != size:
            raise MalformedMessage(
                f"attribute {kind} has {len(found.get(kind, b''))} bytes instead of {size}"
            )
    return b"".join(attribute(kind, found[kind]) for kind, _ in wanted)


def _text(found: Mapping[int, bytes], kind: int) -> bytes:
    return found.get(kind, b"").split(b"\0", 1)[0]


# --------------------------------------------------------------------------------------------------
# Typed


class Connections(NamedTuple):
    """How many connections a real server carries now; persistent clients count apart."""

    active: int
    inactive: int
    persistent: int


def unpack_key(key: bytes) -> VirtualServerKey:
    """A virtual server's key as a typed value."""
    found = dict(attributes(key))
    family = _known(FAMILIES, number(U16, found, IPVS_SVC_ATTR_AF), "address family")
    if IPVS_SVC_ATTR_FWMARK in found:
        return VirtualServerKey(None, None, 0, number(U32, found, IPVS_SVC_ATTR_FWMARK), family)
    return VirtualServerKey.of(
        _known(PROTOCOLS, number(U16, found, IPVS_SVC_ATTR_PROTOCOL), "protocol"),
        unpack_address(found.get(IPVS_SVC_ATTR_ADDR, b""), family),
        number(BE16, found, IPVS_SVC_ATTR_PORT),
    )


def unpack_settings(key: bytes, settings: bytes) -> VirtualServer:
    """A virtual server, without its real servers, as a typed value."""
    of = unpack_key(key)
    found = dict(attributes(settings))
    flags = number(FLAGS, found, IPVS_SVC_ATTR_FLAGS)
    netmask = number(U32, found, IPVS_SVC_ATTR_NETMASK)
    return VirtualServer(
        key=of,
        scheduler=_text(found, IPVS_SVC_ATTR_SCHED_NAME).decode("ascii", "replace"),
        persistence=number(U32, found, IPVS_SVC_ATTR_TIMEOUT),
        netmask=netmask if of.family == 6 else netmask.bit_count(),
        one_packet=bool(flags & IP_VS_SVC_F_ONEPACKET),
        scheduler_flags=flags & IP_VS_SVC_F_SCHED,
        persistence_engine=_text(found, IPVS_SVC_ATTR_PE_NAME).decode("ascii", "replace"),
    )


def unpack_real_key(key: bytes) -> RealServerKey:
    """A real server's key as a typed value."""
    family, address, port = _fields(_REAL_KEY, _REAL_KEY_HEADERS, key)
    version = _known(FAMILIES, family, "address family")
    return RealServerKey(unpack_address(address, version), BE16.unpack(port)[0])


def unpack_real_server(key: bytes, settings: bytes) -> RealServer:
    """A real server as a typed value."""
    method, weight, kind, port, flags, upper, lower = _fields(
        _REAL_SETTINGS, _REAL_SETTINGS_HEADERS, settings
    )
    return RealServer(
        key=unpack_real_key(key),
        forward=_known(FORWARDS, method, "forwarding method"),
        weight=weight,
        upper_threshold=upper,
        lower_threshold=lower,
        tunnel_type=_known(TUNNEL_TYPES, kind, "tunnel type"),
        tunnel_port=BE16.unpack(port)[0],
        tunnel_checksum=_known(CHECKSUMS, flags, "set of tunnel flags"),
    )


def unpack_counters(counters: bytes) -> Connections:
    """A real server's connections from its packed counters."""
    return Connections(*_fields(_COUNTERS, _COUNTERS_HEADERS, counters))


def unpack_address(data: bytes, family: int) -> Address:
    """An address from the kernel's union nf_inet_addr, of which IPv4 uses the first four bytes."""
    if len(data) < 16:
        raise MalformedMessage(f"an address of {len(data)} bytes")
    return ipaddress.IPv6Address(data[:16]) if family == 6 else ipaddress.IPv4Address(data[:4])


def _fields(shape: struct.Struct, headers: tuple[int, ...], data: bytes) -> list[Any]:
    """The values of packed attributes, without their headers."""
    if len(data) != shape.size:
        raise MalformedMessage(f"{len(data)} bytes of attributes instead of {shape.size}")
    values = shape.unpack(data)
    if (*values[0::3], *values[1::3]) != (*headers[0::2], *headers[1::2]):
        raise MalformedMessage("attributes in an unknown order")
    return list(values[2::3])


def _known(names: Mapping[int, Any], code: int, what: str) -> Any:
    if code not in names:
        raise MalformedMessage(f"this version does not know {what} {code}")
    return names[code]


def pack_virtual_server(server: VirtualServer) -> Packed:
    """A virtual server with its real servers, as bytes."""
    return Packed(
        pack_settings(server),
        {pack_real_key(real.key): pack_real_settings(real) for real in server.real_servers},
    )


def unpack_virtual_server(key: bytes, packed: Packed) -> VirtualServer:
    """A virtual server with its real servers in order, as typed values."""
    real_servers = (unpack_real_server(*item) for item in packed.real_servers.items())
    return replace(unpack_settings(key, packed.settings), real_servers=in_order(real_servers))


# --------------------------------------------------------------------------------------------------
# Many of them

# Before the attributes of each: struct nlmsghdr, struct genlmsghdr, and the header of the nested
# attribute that holds them.
HEAD_BYTES = 24
_REPEATED = struct.Struct(
    f"={HEAD_BYTES}s{_REAL_KEY.size - 8}s{_REAL_SETTINGS.size}s{_COUNTERS.size}s8s"
)


@lru_cache(maxsize=64)
def real_server_frames(frame: int) -> struct.Struct:
    """How to cut messages of *frame* bytes, one real server each, from Linux 5.3 on: head, address
    and port, settings, connection counters, address family; what follows (statistics) is dropped.
    """
    return struct.Struct(f"{_REPEATED.format}{frame - _REPEATED.size}x")


def is_usual(frame: bytes) -> bool:
    """Whether the attributes of a real server lie where :func:`real_server_frames` cuts."""
    if len(frame) < _REPEATED.size:
        return False
    _, key, settings, counters, family = _REPEATED.unpack_from(frame)
    cut = (family + key, settings, counters)
    return cut == repack_real_server(frame[HEAD_BYTES:], FAMILY_NUMBERS[4])


class VirtualServerReader:
    """Reads the virtual servers of one dump; most have the settings of another, which are decoded
    once.
    """

    _MARK = NLATTR.pack(8, IPVS_SVC_ATTR_FWMARK)
    _ADDRESS = NLATTR.pack(20, IPVS_SVC_ATTR_ADDR)
    _PORT = NLATTR.pack(6, IPVS_SVC_ATTR_PORT)

    def __init__(self) -> None:
        self._counters = 0
        self._known: dict[tuple[bytes, bytes], bytes] = {}

    def read(self, data: bytes) -> tuple[bytes, bytes]:
        """Key and settings, from the attributes of IPVS_CMD_ATTR_SERVICE."""
        split = 16 if data[8:12] == self._MARK else 44
        kind, raw = data[:16], data[split : len(data) - self._counters]
        if split == 16 or (data[16:20] == self._ADDRESS and data[36:40] == self._PORT):
            settings = self._known.get((kind, raw))
            if settings is not None:
                return data[:split], settings
        key, settings = repack_virtual_server(data)
        if key == data[:split]:
            self._counters = _bytes_of_counters(data)
            self._known[kind, data[split : len(data) - self._counters]] = settings
        return key, settings


def _bytes_of_counters(data: bytes) -> int:
    """How many bytes at the end are statistics, which change all the time."""
    before = 0
    for kind, payload in attributes(data):
        if kind in (IPVS_SVC_ATTR_STATS, IPVS_SVC_ATTR_STATS64):
            return len(data) - before
        before += 4 + (len(payload) + 3 & ~3)
    return 0
