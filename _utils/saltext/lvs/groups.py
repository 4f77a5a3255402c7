"""Virtual server groups: several addresses, ranges of them, or firewall marks as one virtual
server of keepalived's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from saltext.lvs.errors import InvalidConfig
from saltext.lvs.reading import MAX_PORT, Address, port_number

# keepalived makes a virtual server of the kernel of each address.
MOST_ADDRESSES = 4096
_MARK = re.compile(r"fwmark\s+([0-9]{1,10})(?:\s+(inet6?))?")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a group: addresses with a port (0 is any), or a mark of a family.

    line
        As keepalived.conf has it.
    """

    line: str
    addresses: tuple[Address, ...] = ()
    port: int = 0
    fwmark: int = 0
    family: int = 4


def read(items: Iterable[tuple[Any, str]]) -> tuple[Entry, ...]:
    """The entries of a ``group``, each given with its path.

    Raises :class:`~saltext.lvs.errors.InvalidConfig`.
    """
    found = tuple(_entry(item, path) for item, path in items)
    if len({(bool(entry.fwmark), entry.family) for entry in found}) > 1:
        _, path = next(iter(items))
        raise InvalidConfig(
            path.rpartition(":")[0],
            [entry.line for entry in found],
            "addresses of one family, or marks: keepalived 2.2 cannot send both to one real server",
        )
    return found


def _entry(value: Any, path: str) -> Entry:
    text = " ".join(value.split()) if isinstance(value, str) else ""
    mark = _MARK.fullmatch(text)
    try:
        if mark:
            return _marked(text, int(mark[1]), mark[2])
        return _addressed(text)
    except ValueError:
        raise InvalidConfig(
            path,
            value,
            "an address, a range (10.10.10.1-9) or a network, each with a port if there is one, "
            "or 'fwmark 7'",
        ) from None


def _marked(text: str, mark: int, family: str | None) -> Entry:
    if not 0 < mark < 2**32:
        raise ValueError(text)
    return Entry(text, fwmark=mark, family=6 if family == "inet6" else 4)


def _addressed(text: str) -> Entry:
    place, *ports = text.split(" ")
    if len(ports) > 1:
        raise ValueError(text)
    port = port_number(ports[0]) if ports else 0
    addresses = tuple(_addresses(place))
    return Entry(text, addresses, min(port, MAX_PORT), family=addresses[0].version)


def _addresses(place: str) -> Iterator[Address]:
    if "/" in place:
        network = ipaddress.ip_network(place)
        first, last = network[0], network[-1]
    elif "-" in place:
        low, high = place.split("-")
        first = ipaddress.ip_address(low)
        last = _end(first, high)
    else:
        first = last = ipaddress.ip_address(place)
    if first.version != last.version or not 0 <= int(last) - int(first) < MOST_ADDRESSES:
        raise ValueError(place)
    return (type(first)(number) for number in range(int(first), int(last) + 1))


def _end(first: Address, text: str) -> Address:
    """The end of a range: an address, or its last part alone."""
    if text.isalnum():
        separator = "." if first.version == 4 else ":"
        text = str(first.exploded).rpartition(separator)[0] + separator + text
    return ipaddress.ip_address(text)
