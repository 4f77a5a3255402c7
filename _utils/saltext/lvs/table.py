"""The IPVS table: held in the kernel's own bytes, read as typed values, told as plain ones.

A table of ten thousand real servers is compared many times and looked into hardly ever. So two
tables are compared without being decoded, and what must be written is written already; whoever
looks up a virtual server gets a :class:`~saltext.lvs.model.VirtualServer`.

The plain form is what ``ipvs.save`` returns and what an operator may write by hand:

.. code-block:: yaml

    tcp 10.10.10.10:80:
      scheduler: wlc
      persistence: 5
      real_servers:
        10.10.10.41:80: {weight: 50}
        10.10.10.42:80: {weight: 50}
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from saltext.lvs import wire
from saltext.lvs.errors import InvalidConfig
from saltext.lvs.model import (
    MAX_FWMARK,
    MAX_PERSISTENCE_SECONDS,
    MAX_THRESHOLD,
    MAX_WEIGHT,
    WHOLE_PREFIX,
    Forward,
    Protocol,
    RealServer,
    RealServerKey,
    Scheduler,
    VirtualServer,
    VirtualServerKey,
    flag_words,
    in_order,
    read_scheduler_flags,
    read_tunnel,
)
from saltext.lvs.reading import Section, port_number, split_endpoint
from saltext.lvs.wire import Packed, PackedTable

# IP_VS_SCHEDNAME_MAXLEN and IP_VS_PENAME_MAXLEN in linux/ip_vs.h are 16 with the final NUL. Any
# name will do: a kernel may have schedulers that this version has not heard of.
MODULE_NAME = "[a-z0-9_-]{1,15}"
# What the kernel takes, for tables that were read from it; an operator has no use for so much.
HEAVIEST = 2**31 - 1
# Settings are packed without a key, which is packed apart.
NO_KEY = RealServerKey(ipaddress.IPv4Address(0), 0)
_NO_PACKED_KEY = wire.pack_real_key(NO_KEY)
EXAMPLE_KEY = "'tcp 10.10.10.10:80', 'udp [fd00::10]:53', 'fwmark 7' or 'fwmark 7 (IPv6)'"
EXAMPLE_REAL_KEY = "an address and port such as 10.10.10.41:80 or [fd00::41]:80"


class Table(Mapping[VirtualServerKey, VirtualServer]):
    """An IPVS table: virtual servers by their keys; not to be changed once made.

    packed
        The same in the kernel's form, for those who compare or send it.
    """

    __slots__ = ("packed",)

    def __init__(self, packed: PackedTable) -> None:
        self.packed = packed

    @classmethod
    def of(cls, servers: Iterable[VirtualServer]) -> Table:
        """A table of typed values; of several with the same key the last one counts."""
        return cls(
            {wire.pack_key(server.key): wire.pack_virtual_server(server) for server in servers}
        )

    @classmethod
    def from_mapping(cls, servers: Mapping[VirtualServerKey, VirtualServer]) -> Table:
        """A table of any mapping by key; a table is given back as it is."""
        return servers if isinstance(servers, Table) else cls.of(servers.values())

    @classmethod
    def from_data(cls, data: Any, path: str = "table") -> Table:
        """A table of plain values, see above; everything but the keys has the kernel's default.

        path
            Where the values stand, for errors.

        Raises :class:`~saltext.lvs.errors.InvalidConfig` for the first wrong value.
        """
        packed: PackedTable = {}
        reader = _Reader()
        for name, values in _mapping(data, path).items():
            key, port = _key_of(name, path)
            if key in packed:
                raise InvalidConfig(path, name, "named only once")
            packed[key] = reader.virtual_server(key, values, f"{path}:{name}", port)
        return cls(packed)

    def as_data(self) -> dict[str, dict[str, Any]]:
        """All of it as plain values, in order; :meth:`from_data` reads it back."""
        told = _Teller()
        return {
            str(key): told.virtual_server(packed := wire.pack_key(key), self.packed[packed])
            for key in sorted(self, key=VirtualServerKey.sort_key)
        }

    def __getitem__(self, key: VirtualServerKey) -> VirtualServer:
        packed = wire.pack_key(key)
        if packed not in self.packed:
            raise KeyError(key)
        return wire.unpack_virtual_server(packed, self.packed[packed])

    def __iter__(self) -> Iterator[VirtualServerKey]:
        return map(wire.unpack_key, self.packed)

    def __len__(self) -> int:
        return len(self.packed)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Mapping):
            return self.packed == Table.from_mapping(other).packed
        return NotImplemented

    def __repr__(self) -> str:
        return f"Table.of({list(self.values())!r})"


# --------------------------------------------------------------------------------------------------
# As plain values


def describe(server: VirtualServer) -> dict[str, Any]:
    """The settings of a virtual server as plain, JSON-clean values, without its key."""
    return {
        "scheduler": server.scheduler,
        "persistence": server.persistence,
        "netmask": server.netmask,
        "one_packet": server.one_packet,
        "scheduler_flags": list(flag_words(server.scheduler_flags)),
        "persistence_engine": server.persistence_engine,
    }


class _Teller:
    """Tells the virtual servers of one table; most settings occur again and again, and are decoded
    once.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, dict[str, Any]] = {}

    def virtual_server(self, key: bytes, packed: Packed) -> dict[str, Any]:
        """A virtual server with its real servers, in the order of their keys, which their bytes
        have too.
        """
        return {
            **describe(wire.unpack_settings(key, packed.settings)),
            "real_servers": {
                _endpoint_text(real): dict(self._settings(settings))
                for real, settings in sorted(packed.real_servers.items())
            },
        }

    def _settings(self, settings: bytes) -> dict[str, Any]:
        if settings not in self._known:
            server = wire.unpack_real_server(_NO_PACKED_KEY, settings)
            self._known[settings] = describe_real_server(server)
        return self._known[settings]


def describe_real_server(server: RealServer) -> dict[str, Any]:
    """The settings of a real server as plain values, without its key; those of a tunnel only where
    there is one.
    """
    described: dict[str, Any] = {
        "forward": server.forward.value,
        "weight": server.weight,
        "upper_threshold": server.upper_threshold,
        "lower_threshold": server.lower_threshold,
    }
    if server.forward is Forward.TUNNEL:
        described["tunnel_type"] = server.tunnel_type.value
        described["tunnel_port"] = server.tunnel_port
        described["tunnel_checksum"] = server.tunnel_checksum.value
    return described


# --------------------------------------------------------------------------------------------------
# From plain values


def virtual_server_key(text: Any, path: str = "virtual_server") -> VirtualServerKey:
    """The key that ``tcp 10.10.10.10:80`` or ``fwmark 7`` spells; of an address and port alone the
    protocol is tcp.

    Raises :class:`~saltext.lvs.errors.InvalidConfig`.
    """
    return wire.unpack_key(_key_of(text, path)[0])


def real_server_key(
    text: Any, of: VirtualServerKey, forward: Forward, path: str = "real_server"
) -> RealServerKey:
    """The key that ``10.10.10.41:80`` spells, :func:`settled`; of an address alone the port is the
    virtual server's.

    Raises :class:`~saltext.lvs.errors.InvalidConfig`.
    """
    return settled(wire.unpack_real_key(_real_key_of(text, of.port, path)), forward, of)


def settled(key: RealServerKey, forward: Forward, of: VirtualServerKey) -> RealServerKey:
    """The same real server with the port that it has in the table.

    Only masquerading rewrites ports. With the others it is the virtual server's, whatever was asked
    for: the kernel would take another one, but ipvsadm could not find that real server again. A
    firewall mark has none, so there the port stays.
    """
    keeps = forward is Forward.MASQ or of.protocol is None
    return key if keeps else RealServerKey(key.address, of.port)


def find_real_servers(
    server: VirtualServer, text: Any, path: str = "real_server"
) -> tuple[RealServer, ...]:
    """The real servers that ``10.10.10.41:80`` spells, or ``10.10.10.41`` with whatever port.

    Where the port of a packet stays as it is, a real server is found by any port, as it is added.

    Raises :class:`~saltext.lvs.errors.InvalidConfig`.
    """
    try:
        family, address, port = _endpoint(text)
    except (ValueError, TypeError):
        raise InvalidConfig(path, text, EXAMPLE_REAL_KEY) from None
    wanted = wire.unpack_address(address.ljust(16, b"\0"), family)
    return tuple(
        real
        for real in server.real_servers
        if real.key.address == wanted
        and (port is None or port == real.key.port or real.forward in _PORT_STAYS)
    )


_PORT_STAYS = (Forward.DIRECT, Forward.TUNNEL)


def _key_of(text: Any, path: str) -> tuple[bytes, int]:
    """A virtual server's packed key, and its port."""
    word, _, rest = text.partition(" ") if isinstance(text, str) else ("", "", "")
    if word == "fwmark":
        return _mark_key(rest, text, path), 0
    if not rest:
        word, rest = "tcp", word
    try:
        protocol = Protocol(word)
        family, address, port = _endpoint(rest)
    except ValueError:
        raise InvalidConfig(path, text, EXAMPLE_KEY) from None
    if port is None:
        raise InvalidConfig(path, text, f"with a port, like {EXAMPLE_KEY}")
    return wire.pack_address_key(family, protocol, address, port), port


def _mark_key(rest: str, text: str, path: str) -> bytes:
    found = re.fullmatch(r"([0-9]{1,10})( \(IPv6\))?", rest)
    mark = int(found[1]) if found else 0
    if found is None or not 0 < mark <= MAX_FWMARK:
        raise InvalidConfig(path, text, f"fwmark and a number from 1 to {MAX_FWMARK}")
    return wire.pack_key(VirtualServerKey(None, None, 0, mark, 6 if found[2] else 4))


def _real_key_of(text: Any, port: int, path: str) -> bytes:
    """A real server's packed key; *port* is meant where the text has none."""
    try:
        host, _, own_port = text.rpartition(":")
        return _IPV4_HEAD + socket.inet_pton(socket.AF_INET, host) + _ipv4_tail(own_port)
    except (OSError, ValueError, AttributeError, TypeError):
        pass
    try:
        family, address, own = _endpoint(text)
    except (ValueError, TypeError):
        raise InvalidConfig(path, text, EXAMPLE_REAL_KEY) from None
    return wire.pack_real_address_key(family, address, port if own is None else own)


# The short cut for IPv4, of which there may be a hundred thousand: all but the address is known.
_IPV4_HEAD = wire.pack_real_address_key(4, bytes(4), 0)[:12]


@lru_cache(maxsize=1024)
def _ipv4_tail(port: str) -> bytes:
    return wire.pack_real_address_key(4, bytes(4), port_number(port))[16:]


@lru_cache(maxsize=1024)
def _port_text(tail: bytes) -> str:
    return f":{wire.unpack_real_key(_IPV4_HEAD + bytes(4) + tail).port}"


def _endpoint_text(key: bytes) -> str:
    """A real server's packed key as people write it."""
    if not key.startswith(_IPV4_HEAD):
        return str(wire.unpack_real_key(key))
    return socket.inet_ntop(socket.AF_INET, key[12:16]) + _port_text(key[16:])


def _endpoint(text: str) -> tuple[int, bytes, int | None]:
    """Family, packed address, and the port if there is one; raises ValueError."""
    family, address, port = split_endpoint(text)
    return family, address, None if port is None else port_number(port)


def with_settings(
    server: VirtualServer, given: Mapping[str, Any], path: str | None = None
) -> VirtualServer:
    """The virtual server with some settings changed, given in the plain form; the others stay.

    Raises :class:`~saltext.lvs.errors.InvalidConfig`.
    """
    key = wire.pack_key(server.key)
    section = Section({**describe(server), **given}, path or str(server.key))
    settings = _settings(section, server.key.family)
    section.finish()
    return replace(wire.unpack_settings(key, settings), real_servers=server.real_servers)


def with_real_server(
    server: VirtualServer,
    key: RealServerKey,
    given: Mapping[str, Any],
    path: str | None = None,
) -> VirtualServer:
    """The virtual server with one real server added, or with some settings of it changed.

    Raises :class:`~saltext.lvs.errors.InvalidConfig`.
    """
    held = {real.key: real for real in server.real_servers}
    values = describe_real_server(held[key]) if key in held else {}
    values.update(given)
    if values.get("forward", Forward.DIRECT.value) != Forward.TUNNEL.value:
        values = {
            name: value for name, value in values.items() if name in given or name not in _TUNNEL
        }
    section = Section(values, path or f"{server.key} -> {key}")
    heaviest = MAX_WEIGHT if "weight" in given else HEAVIEST
    settings = _real_settings(section, key.address.version != server.key.family, heaviest)
    section.finish()
    held[key] = wire.unpack_real_server(wire.pack_real_key(key), settings)
    return replace(server, real_servers=in_order(held.values()))


def without_real_server(server: VirtualServer, key: RealServerKey) -> VirtualServer:
    """The virtual server without one real server."""
    return replace(
        server, real_servers=tuple(real for real in server.real_servers if real.key != key)
    )


_TUNNEL = ("tunnel_type", "tunnel_port", "tunnel_checksum")


class _Reader:
    """Reads the virtual servers of one table; most settings occur again and again, and are checked
    once.
    """

    def __init__(self) -> None:
        self._known: dict[Any, bytes] = {}

    def virtual_server(self, key: bytes, values: Any, path: str, port: int) -> Packed:
        """A virtual server with its real servers."""
        values = dict(_mapping(values, path))
        given = _mapping(values.pop("real_servers", None), f"{path}:real_servers")
        family = wire.family_of(key)
        settings = self._once(_settings, values, family, path)
        real_servers: dict[bytes, bytes] = {}
        for name, real in given.items():
            real_key = _real_key_of(name, port, f"{path}:real_servers")
            if real_key in real_servers:
                raise InvalidConfig(f"{path}:real_servers", name, "named only once")
            crosses = wire.family_of(real_key) != family
            real_servers[real_key] = self._once(_real_settings, real, crosses, path, name)
        return Packed(settings, real_servers)

    def _once(
        self,
        read: Callable[[Section, Any], bytes],
        values: Any,
        about: Any,
        path: str,
        real_server: Any = None,
    ) -> bytes:
        """The packed form of *values*, by *read* where these were not seen before."""
        form: tuple[Any, ...] | None
        try:
            # The types too: True is equal to 1, but no weight.
            form = (about, *values.items(), *map(type, values.values()))
            known = self._known.get(form)
        except (AttributeError, TypeError):  # no mapping, or a list in it
            form = known = None
        if known is not None:
            return known
        place = path if real_server is None else f"{path}:real_servers:{real_server}"
        section = Section(values, place)
        packed = read(section, about)
        section.finish()
        if form is not None:
            self._known[form] = packed
        return packed


def _mapping(values: Any, path: str) -> Mapping[Any, Any]:
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise InvalidConfig(path, values, "a mapping of keys to values")
    return values


def _settings(section: Section, family: int) -> bytes:
    """A virtual server's packed settings."""
    whole = WHOLE_PREFIX[family]
    return wire.pack_settings(
        VirtualServer(
            key=VirtualServerKey(None, None, 0, 0, family),
            scheduler=section.text(
                "scheduler", MODULE_NAME, "a scheduler such as wlc", Scheduler.WLC.value
            ),
            persistence=section.integer("persistence", 0, MAX_PERSISTENCE_SECONDS, 0),
            # The kernel takes an empty prefix for IPv4 alone.
            netmask=section.integer("netmask", 1 if family == 6 else 0, whole, whole),
            one_packet=section.flag("one_packet", False),
            scheduler_flags=read_scheduler_flags(section),
            persistence_engine=section.text(
                "persistence_engine", f"({MODULE_NAME})?", "'sip' or ''", ""
            ),
        )
    )


def _real_settings(section: Section, crosses: bool, heaviest: int = HEAVIEST) -> bytes:
    """A real server's packed settings.

    crosses
        Whether its address is of another family than the virtual server's.

    heaviest
        The largest weight that is right.
    """
    forward = section.choice("forward", Forward, Forward.DIRECT)
    if crosses and forward is not Forward.TUNNEL:
        raise InvalidConfig(
            section.at("forward"),
            forward.value,
            "tunnel, which alone can reach a real server of another address family",
        )
    upper = section.integer("upper_threshold", 0, MAX_THRESHOLD, 0)
    tunnel = read_tunnel(section)
    return wire.pack_real_settings(
        RealServer(
            key=NO_KEY,
            forward=forward,
            weight=section.integer("weight", 0, heaviest, 1),
            upper_threshold=upper,
            lower_threshold=section.integer("lower_threshold", 0, upper, 0),
            tunnel_type=tunnel.type,
            tunnel_port=tunnel.port,
            tunnel_checksum=tunnel.checksum,
        )
    )
