"""Read a pillar mapping key by key, so that every wrong value is named with its path.

A :class:`Section` is one mapping of the pillar. Each getter takes a key, checks what stands there,
and answers a typed value or raises :class:`~saltext.lvs.errors.InvalidConfig`. What nobody has
asked for by the end is a spelling error.
"""

from __future__ import annotations

import difflib
import enum
import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from saltext.lvs.errors import MASK, InvalidConfig
from saltext.lvs.masking import is_password_keyword

T = TypeVar("T")
E = TypeVar("E", bound=enum.Enum)
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

REQUIRED: Any = object()

MAX_PORT = 2**16 - 1

# What may stand unquoted in keepalived.conf, in an event and in a mail's subject alike.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@+-]{0,63}")
# Documentation/networking/ipvs-sysctl.rst
IPVS_SYSCTLS = "net.ipv4.vs."
NUMBERS = re.compile(r"-?[0-9]+( -?[0-9]+)*|[0-9,:/-]+")
# IFNAMSIZ in linux/if.h is 16 with the final NUL; the kernel takes any byte but "/" and white
# space.
INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,14}")
# Without brackets IPv6 has two colons at least, and no port: the last part might be one or not.
ENDPOINT = re.compile(
    r"(?P<bare6>[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)"
    r"|(?:(?P<v4>[0-9.]+)|\[(?P<v6>[0-9A-Fa-f:.]+)\])(?::(?P<port>\S+))?"
)


def plain(value: Any) -> Any:
    """Copy mappings and sequences into plain ones: a minion's pillar prints as stars, and must not
    be shared.
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def as_address(value: Any, path: str) -> Address:
    """An IPv4 or IPv6 address without a prefix."""
    if isinstance(value, str):
        try:
            return ipaddress.ip_address(value.strip())
        except ValueError:
            pass
    raise InvalidConfig(path, value, "an IPv4 or IPv6 address such as 10.10.10.10")


def split_endpoint(text: str) -> tuple[int, bytes, str | None]:
    """Family, packed address, and port as written, of an address with or without a port:
    ``10.10.10.10:80``, ``[fd00::10]:80``, ``fd00::10``.

    Raises ValueError for anything else; what the port is good for is not looked at.
    """
    found = ENDPOINT.fullmatch(text)
    if found is None:
        raise ValueError(text)
    family = 4 if found["v4"] else 6
    try:
        address = socket.inet_pton(_INET[family], found["v4"] or found["v6"] or found["bare6"])
    except OSError:
        raise ValueError(text) from None
    return family, address, found["port"]


_INET = {4: socket.AF_INET, 6: socket.AF_INET6}


def port_number(text: str) -> int:
    """A port in digits; raises ValueError for anything else."""
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > MAX_PORT:
        raise ValueError(text)
    return int(text)


def as_name(value: Any, path: str) -> str:
    """A name made of what every place that prints it can take."""
    if isinstance(value, str) and NAME.fullmatch(value):
        return value
    raise InvalidConfig(path, value, "a name of letters, digits and _ . : @ + - (64 at most)")


def as_ipvs_sysctls(value: Any, path: str) -> dict[str, str | None]:
    """Values of ``net.ipv4.vs.*`` by full name, from names with or without that; None leaves one
    as it is.
    """
    if value is not None and not isinstance(value, Mapping):
        raise InvalidConfig(path, value, "a mapping of names to values")
    found: dict[str, str | None] = {}
    for name, setting in (value or {}).items():
        short = str(name).removeprefix(IPVS_SYSCTLS)
        if not re.fullmatch("[a-z0-9_]{1,40}", short):
            raise InvalidConfig(f"{path}:{name}", setting, f"a setting below {IPVS_SYSCTLS}")
        text = " ".join(str(setting).split())
        if isinstance(setting, bool) or not NUMBERS.fullmatch("0" if setting is None else text):
            raise InvalidConfig(
                f"{path}:{name}", setting, "a whole number, or some of them as text"
            )
        found[f"{IPVS_SYSCTLS}{short}"] = None if setting is None else text
    return found


class Section:
    """One mapping of the pillar, and where it stands.

    value
        The mapping; ``None`` (an empty YAML key) reads as an empty one.

    path
        Its place, such as ``lvs:virtual_servers:web``.
    """

    def __init__(self, value: Any, path: str) -> None:
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise InvalidConfig(path, value, "a mapping of keys to values")
        self.path = path
        self._values: dict[Any, Any] = dict(value)
        self._asked: set[str] = set()

    def at(self, key: object) -> str:
        """The path of a key of this section."""
        return f"{self.path}:{key}"

    def raw(self, key: str, default: Any = None) -> Any:
        """The value as it stands; an empty YAML key counts as not given."""
        self._asked.add(key)
        value = self._values.get(key)
        return default if value is None else value

    def has(self, key: str) -> bool:
        """Whether the key is given."""
        return self.raw(key) is not None

    def _checked(self, key: str, default: T, fits: Callable[[Any], bool], expected: str) -> Any | T:
        value = self.raw(key)
        if value is None:
            if default is REQUIRED:
                raise InvalidConfig(self.at(key), None, expected)
            return default
        if not fits(value):
            raise InvalidConfig(self.at(key), value, expected)
        return value

    def integer(self, key: str, low: int, high: int, default: Any = REQUIRED) -> int:
        """A whole number from *low* to *high*."""
        return int(
            self._checked(
                key,
                default,
                lambda value: type(value) is int and low <= value <= high,
                f"a whole number from {low} to {high}",
            )
        )

    def number(self, key: str, low: float, high: float, default: Any = REQUIRED) -> float:
        """A number, fractions allowed, from *low* to *high*."""
        return float(
            self._checked(
                key,
                default,
                lambda value: type(value) in (int, float) and low <= value <= high,
                f"a number from {low:g} to {high:g}",
            )
        )

    def flag(self, key: str, default: bool) -> bool:
        """True or False; a quoted word is neither."""
        return bool(self._checked(key, default, lambda value: type(value) is bool, "True or False"))

    def choice(self, key: str, words: type[E], default: E, without: tuple[E, ...] = ()) -> E:
        """One of an enum's values, as a word in any case; *without* names members that are not for
        pillars.
        """
        value = self.raw(key)
        if value is None:
            return default
        members = [member for member in words if member not in without]
        for member in members:
            if isinstance(value, str) and value.lower() == str(member.value).lower():
                return member
        words_left = ", ".join(str(member.value) for member in members)
        raise InvalidConfig(self.at(key), value, f"one of {words_left}")

    def name(self, key: str, default: Any = REQUIRED) -> str:
        """A name, see :func:`as_name`."""
        value = self.raw(key)
        if value is None and default is not REQUIRED:
            return str(default)
        return as_name(value, self.at(key))

    def text(self, key: str, pattern: str, expected: str, default: Any = REQUIRED) -> str:
        """Text that a regular expression matches as a whole."""
        return str(
            self._checked(
                key,
                default,
                lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value)),
                expected,
            )
        )

    def secret(self, key: str, pattern: str, expected: str) -> str:
        """Like :meth:`text`, but an error never shows the value."""
        value = self.raw(key)
        if isinstance(value, str) and re.fullmatch(pattern, value):
            return value
        raise InvalidConfig(self.at(key), MASK, expected)

    def interface(self, key: str, default: Any = REQUIRED) -> str:
        """The name of a network interface."""
        return self.text(
            key,
            INTERFACE.pattern,
            "the name of a network interface (15 characters at most)",
            default,
        )

    def address(self, key: str) -> Address:
        """An IPv4 or IPv6 address, required."""
        return as_address(self.raw(key), self.at(key))

    def items_of(self, key: str) -> list[tuple[Any, str]]:
        """The elements of a list (or a single value), each with its path."""
        value = self.raw(key, [])
        if isinstance(value, (str, int)):
            value = [value]
        if not isinstance(value, (list, tuple)):
            raise InvalidConfig(self.at(key), value, "a list")
        return [(item, f"{self.at(key)}:{index}") for index, item in enumerate(value)]

    def named(self, key: str) -> Iterator[tuple[str, Any, str]]:
        """The entries of a mapping by name, or of a list of bare names: name, value (or None),
        path.
        """
        value = self.raw(key, {})
        if isinstance(value, (list, tuple)):
            value = self._names_to_mapping(key, value)
        if not isinstance(value, Mapping):
            raise InvalidConfig(self.at(key), value, "a mapping by name, or a list of names")
        for name, item in value.items():
            path = f"{self.at(key)}:{name}"
            yield as_name(name, path), item, path

    def _names_to_mapping(self, key: str, names: Iterable[Any]) -> dict[str, None]:
        seen: dict[str, None] = {}
        for name in names:
            known = as_name(name, self.at(key))
            if known in seen:
                raise InvalidConfig(self.at(key), known, "named only once")
            seen[known] = None
        return seen

    def section(self, key: str) -> Section:
        """The mapping under a key, empty if it is not given."""
        return Section(self.raw(key), self.at(key))

    def finish(self, more: str = "") -> None:
        """Call when all keys have been asked for: what is left over is misspelt or misplaced.

        more
            What else it may be than those that are told; those that look alike are told only.
        """
        for key in self._values:
            if key not in self._asked:
                # A misplaced password must not be printed by the very error that says so.
                value = MASK if is_password_keyword(str(key)) else self._values[key]
                raise InvalidConfig(self.at(key), value, f"left out, or {self._known(key, more)}")

    def _known(self, key: object, more: str) -> str:
        known = sorted(self._asked)
        if not more:
            return f"one of: {', '.join(known)}"
        alike = difflib.get_close_matches(str(key), known, n=1)
        return ", or ".join([*(f"spelt {word}" for word in alike), more])
