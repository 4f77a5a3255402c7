"""The connections that IPVS keeps: read line by line, filtered, counted, shown a page at a time.

The kernel tells them in /proc/net/ip_vs_conn alone, a line each; there may be millions, so no more
than a page is ever held. What is asked for is turned into the kernel's own words first, so that a
line which does not match costs next to nothing.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from saltext.lvs.errors import InvalidConfig, LvsError, NotAvailable
from saltext.lvs.ipvs import NOT_LOADED
from saltext.lvs.model import (
    MAX_FWMARK,
    MAX_PERSISTENCE_SECONDS,
    RealServerKey,
    endpoint,
)
from saltext.lvs.reading import Address, port_number, split_endpoint

# Of the calling thread's network namespace, which need not be that of its process.
PATH = "/proc/thread-self/net/ip_vs_conn"

DEFAULT_LIMIT = 100
MAX_LIMIT = 10_000

# Columns of ip_vs_conn_seq_show() in net/netfilter/ipvs/ip_vs_conn.c. Behind them stand the name
# and the data of a persistence engine, since Linux 2.6.37; the data may have spaces.
PROTOCOL, CLIENT, CLIENT_PORT, VIP, VIP_PORT, REAL_SERVER, REAL_SERVER_PORT, STATE, EXPIRES = range(
    9
)
ENGINE, ENGINE_DATA = 9, 10
COLUMNS = 9

HEADER = b"Pro"
# A firewall mark's template has the mark in the place of the VIP, and the protocol "IP".
MARK = b"IP"
PROTOCOLS = ("tcp", "udp", "sctp", "ah", "esp", "ip")
# Of ip_vs_ctpl_state_name_table in net/netfilter/ipvs/ip_vs_proto.c; NONE before Linux 4.18.
TEMPLATE_STATES = (b"NONE", b"ASSURED")
WORD = re.compile(r"[A-Za-z0-9_!?-]{1,32}")
# ntohl() printed by %08X, and %pI6.
HEX_IPV4 = re.compile(rb"[0-9A-F]{8}")
HEX_IPV6 = re.compile(rb"[0-9a-f]{4}(:[0-9a-f]{4}){7}")
HEX_PORT = re.compile(rb"[0-9A-F]{4}")
MARK_TEXT = re.compile(r"fwmark (?P<number>\d{1,10})(?P<ipv6> \(IPv6\))?")

Test = Callable[[list[bytes]], bool]


class MalformedLine(LvsError):
    """A line that no known kernel writes: nothing is guessed from it."""


# --------------------------------------------------------------------------------------------------
# Values


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection, or the memory of a client's real server.

    protocol
        ``tcp``, ``udp``, ``sctp``, ``ah``, ``esp``; ``ip`` for a firewall mark's template.

    client, virtual_server, real_server
        Address and port.

    state
        The kernel's word, such as ``ESTABLISHED``.

    expires
        Seconds until it is forgotten, if nothing more is heard of it.

    template
        Whether this is no connection, but what persistence keeps of a client: no client's port.

    persistence_engine, persistence_data
        What a persistence engine knows the client by, such as ``sip`` and a call's id.
    """

    protocol: str
    client: str
    virtual_server: str
    real_server: str
    state: str
    expires: int
    template: bool = False
    persistence_engine: str = ""
    persistence_data: str = ""

    def as_data(self) -> dict[str, Any]:
        """As plain values; those of a persistence engine only where there is one."""
        data: dict[str, Any] = {
            "protocol": self.protocol,
            "client": self.client,
            "virtual_server": self.virtual_server,
            "real_server": self.real_server,
            "state": self.state,
            "expires": self.expires,
            "template": self.template,
        }
        if self.persistence_engine:
            data["persistence_engine"] = self.persistence_engine
            data["persistence_data"] = self.persistence_data
        return data


@dataclass(frozen=True, slots=True)
class Listing:
    """What a look at the connections found.

    total
        Connections that match.

    templates
        Those of them that are persistence templates.

    by_state
        How many match, by state.

    by_real_server
        How many match, by real server and state.

    page
        The connections of the page that was asked for, in the kernel's order, which is none.
    """

    total: int
    templates: int
    by_state: Mapping[str, int]
    by_real_server: Mapping[str, Mapping[str, int]]
    page: tuple[Connection, ...] = field(default=())

    def as_data(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "total": self.total,
            "templates": self.templates,
            "by_state": dict(self.by_state),
            "by_real_server": {name: dict(states) for name, states in self.by_real_server.items()},
            "connections": [connection.as_data() for connection in self.page],
        }


# --------------------------------------------------------------------------------------------------
# Read


def parse(columns: list[bytes]) -> Connection:
    """A connection from the columns of its line."""
    protocol = _word(columns[PROTOCOL]).lower()
    return Connection(
        protocol=protocol,
        client=_endpoint(columns[CLIENT], columns[CLIENT_PORT]),
        virtual_server=(
            _mark(columns[VIP])
            if columns[PROTOCOL] == MARK
            else f"{protocol} {_endpoint(columns[VIP], columns[VIP_PORT])}"
        ),
        real_server=_endpoint(columns[REAL_SERVER], columns[REAL_SERVER_PORT]),
        state=_word(columns[STATE]),
        expires=_seconds(columns[EXPIRES]),
        template=_is_template(columns),
        persistence_engine=_word(columns[ENGINE]) if len(columns) > ENGINE else "",
        persistence_data=_word(columns[ENGINE_DATA].rstrip(b"\n"))
        if len(columns) > ENGINE_DATA
        else "",
    )


def read(
    lines: Iterable[bytes],
    tests: Iterable[Test] = (),
    offset: int = 0,
    limit: int = DEFAULT_LIMIT,
) -> Listing:
    """Go through the lines of the kernel's list once.

    tests
        What a line's columns must pass (see :func:`filters`).

    offset, limit
        Which of the matching connections make the page.

    Raises :class:`MalformedLine`.
    """
    tests = tuple(tests)
    total = templates = 0
    counts: Counter[tuple[bytes, bytes, bytes]] = Counter()
    page: list[Connection] = []
    for line in lines:
        columns = line.split(None, ENGINE_DATA)
        if len(columns) < COLUMNS:
            raise MalformedLine(f"the kernel's list of connections has a line {line!r}")
        if columns[PROTOCOL] == HEADER or not all(test(columns) for test in tests):
            continue
        counts[columns[REAL_SERVER], columns[REAL_SERVER_PORT], columns[STATE]] += 1
        templates += _is_template(columns)
        if offset <= total < offset + limit:
            page.append(parse(columns))
        total += 1
    return Listing(total, templates, _by_state(counts), _by_real_server(counts), tuple(page))


def look(tests: Iterable[Test] = (), offset: int = 0, limit: int = DEFAULT_LIMIT) -> Listing:
    """Read the connections of the calling thread's network namespace; arguments as of :func:`read`.

    Connections that come and go meanwhile may be missing, or be there twice.

    Raises :class:`~saltext.lvs.errors.NotAvailable` where the kernel has no IPVS loaded.
    """
    try:
        with open(PATH, "rb") as lines:
            return read(lines, tests, offset, limit)
    except FileNotFoundError as error:
        raise NotAvailable(NOT_LOADED) from error


def _by_state(counts: Mapping[tuple[bytes, bytes, bytes], int]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for (_, _, state), number in counts.items():
        found[_word(state)] += number
    return dict(sorted(found.items()))


def _by_real_server(
    counts: Mapping[tuple[bytes, bytes, bytes], int],
) -> dict[str, dict[str, int]]:
    found: dict[RealServerKey, dict[str, int]] = {}
    for (address, port, state), number in counts.items():
        server = RealServerKey(_address(address), _port(port))
        found.setdefault(server, {})[_word(state)] = number
    return {
        str(server): dict(sorted(found[server].items()))
        for server in sorted(found, key=RealServerKey.sort_key)
    }


def _is_template(columns: list[bytes]) -> bool:
    return columns[CLIENT_PORT] == b"0000" and columns[STATE] in TEMPLATE_STATES


def _endpoint(address: bytes, port: bytes) -> str:
    return endpoint(_address(address), _port(port))


def _address(column: bytes) -> Address:
    if HEX_IPV4.fullmatch(column):
        return ipaddress.IPv4Address(int(column, 16))
    if HEX_IPV6.fullmatch(column):
        return ipaddress.IPv6Address(int(column.replace(b":", b""), 16))
    raise MalformedLine(f"the kernel's list of connections has an address {column!r}")


def _port(column: bytes) -> int:
    if HEX_PORT.fullmatch(column):
        return int(column, 16)
    raise MalformedLine(f"the kernel's list of connections has a port {column!r}")


def _seconds(column: bytes) -> int:
    if not column.isdigit():
        raise MalformedLine(f"the kernel's list of connections has a time {column!r}")
    seconds = int(column)
    # A timer that should have fired by now is told as a negative number of jiffies without a sign:
    # more seconds than the longest timer has, which is that of persistence.
    return seconds if seconds <= MAX_PERSISTENCE_SECONDS else 0


def _word(column: bytes) -> str:
    return column.decode("ascii", "backslashreplace")


def _mark(column: bytes) -> str:
    """A firewall mark stands in the first four bytes of an address of its family."""
    address = _address(column)
    mark = int.from_bytes(address.packed[:4], "big")
    return f"fwmark {mark}" + (" (IPv6)" if address.version == 6 else "")


def _mark_as_address(mark: int, ipv6: bool) -> Address:
    return ipaddress.IPv6Address(mark << 96) if ipv6 else ipaddress.IPv4Address(mark)


# --------------------------------------------------------------------------------------------------
# Filters


def filters(
    protocol: Any = None,
    client: Any = None,
    virtual_server: Any = None,
    real_server: Any = None,
    state: Any = None,
) -> tuple[Test, ...]:
    """What lines must pass; None asks for nothing.

    protocol, state
        The kernel's words, in any case.

    client
        An address, or a network.

    virtual_server
        As in the table (``tcp 10.10.10.10:80``, ``fwmark 7``); the protocol, the port or both may
        be left out.

    real_server
        An address, with or without its port.

    Raises :class:`~saltext.lvs.errors.InvalidConfig`.
    """
    tests: list[Test] = []
    if protocol is not None:
        tests.append(_equals(PROTOCOL, _as_word(protocol, "protocol", PROTOCOLS)))
    if state is not None:
        tests.append(_equals(STATE, _as_word(state, "state", None)))
    if client is not None:
        tests.append(_is_client(client))
    if virtual_server is not None:
        tests += _is_virtual_server(virtual_server)
    if real_server is not None:
        tests += _is_real_server(real_server)
    return tuple(tests)


def _equals(column: int, word: bytes) -> Test:
    return lambda columns: columns[column] == word


def _as_word(value: Any, path: str, known: Collection[str] | None) -> bytes:
    if isinstance(value, str) and WORD.fullmatch(value) and (not known or value.lower() in known):
        return value.upper().encode()
    expected = f"one of {', '.join(known)}" if known else "a state such as ESTABLISHED"
    raise InvalidConfig(path, value, expected)


def _is_client(value: Any) -> Test:
    try:
        network = ipaddress.ip_network(str(value), strict=False)
    except ValueError:
        expected = "an address such as 10.10.10.100, or a network such as 10.10.10.0/24"
        raise InvalidConfig("client", value, expected) from None
    if network.num_addresses == 1:
        return _equals(CLIENT, _column(network.network_address))
    return lambda columns: _address(columns[CLIENT]) in network


def _is_virtual_server(value: Any) -> list[Test]:
    text = value if isinstance(value, str) else ""
    mark = MARK_TEXT.fullmatch(text)
    if mark and int(mark["number"]) <= MAX_FWMARK:
        address = _mark_as_address(int(mark["number"]), bool(mark["ipv6"]))
        return [_equals(PROTOCOL, MARK), _equals(VIP, _column(address))]
    protocol, _, rest = text.rpartition(" ")
    tests = _endpoint_tests(rest, VIP, VIP_PORT)
    if tests is None or protocol.lower() not in ("", *PROTOCOLS):
        raise InvalidConfig("virtual_server", value, "such as tcp 10.10.10.10:80 or fwmark 7")
    if protocol:
        tests.append(_equals(PROTOCOL, protocol.upper().encode()))
    return tests


def _is_real_server(value: Any) -> list[Test]:
    tests = _endpoint_tests(value, REAL_SERVER, REAL_SERVER_PORT)
    if tests is None:
        raise InvalidConfig("real_server", value, "such as 10.10.10.41 or 10.10.10.41:80")
    return tests


def _endpoint_tests(value: Any, address_column: int, port_column: int) -> list[Test] | None:
    try:
        _, address, port = split_endpoint(value)
        tests = [_equals(address_column, _column(ipaddress.ip_address(address)))]
        if port is not None:
            tests.append(_equals(port_column, b"%04X" % port_number(port)))
    except (ValueError, TypeError):
        return None
    return tests


def _column(address: Address) -> bytes:
    """An address as the kernel writes it."""
    if address.version == 4:
        return b"%08X" % int(address)
    return address.exploded.encode()


def as_page(offset: Any = 0, limit: Any = DEFAULT_LIMIT) -> tuple[int, int]:
    """Check which page of connections somebody wants: how many to skip, how many to show."""
    wanted = (("offset", offset, sys.maxsize), ("limit", limit, MAX_LIMIT))
    for name, value, most in wanted:
        if type(value) is not int or not 0 <= value <= most:
            raise InvalidConfig(name, value, f"a whole number from 0 to {most}")
    return offset, limit
