"""Turn a keepalived.conf that a site has into the pillar that says the same.

A keyword that :mod:`saltext.lvs.grammar` knows gets its place and its type. Any other one becomes a
raw keyword tree in the nearest ``extra``. What fits neither is told in the notes with its place and
the reason; nothing is dropped without one.

One file makes one director. :func:`merge` puts the pillars of several directors together.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from saltext.lvs import (
    demands,
    fifos,
    grammar,
    groups,
    instances,
    keywords,
    model,
    trackfiles,
)
from saltext.lvs.conffile import Node, Tree, Where
from saltext.lvs.errors import MASK, InvalidConfig
from saltext.lvs.masking import is_password_keyword
from saltext.lvs.reading import INTERFACE, NAME

Pillar = dict[str, Any]

# keepalived's own defaults, where a pillar's are others. check_data.c and vrrp_data.c of 2.2.
DELAY_LOOP_SECONDS = 60
PERSISTENCE_SECONDS = 360
PRIORITY = 100
# Names that keepalived still takes, and those that it has had for longer.
SYNONYMS = {
    "lb_algo": "lvs_sched",
    "lb_kind": "lvs_method",
    "nb_get_retry": "retry",
    "neighbour_ip": "neighbor_ip",
    "vrrp_track_file": "track_file",
}
_FORWARDS = {"NAT": "masq", "DR": "direct", "TUN": "tunnel"}
_FLAGS = {
    "flag-1": "fallback",
    "flag-2": "port",
    "flag-3": "flag-3",
    "sh-fallback": "fallback",
    "sh-port": "port",
    "mh-fallback": "fallback",
    "mh-port": "port",
}
_ON = frozenset(("on", "true", "yes"))
_OFF = frozenset(("off", "false", "no"))
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_SECONDS = re.compile(r"-?(?:[0-9]{1,12}(?:\.[0-9]{0,6})?|\.[0-9]{1,6})")
_FIFOS = frozenset(
    (
        "vrrp_notify_fifo",
        "vrrp_notify_fifo_script",
        "lvs_notify_fifo",
        "lvs_notify_fifo_script",
    )
)
# Keywords whose words keepalived takes with either quotes and with escapes.
_COMMANDS = frozenset(
    (
        *("script", "misc_path", "regex", "process", "quorum_up", "quorum_down", "notify"),
        *("notify_master", "notify_backup", "notify_fault", "notify_stop", "notify_deleted"),
        *("notify_master_rx_lower_pri", "notify_up", "notify_down"),
        *("startup_script", "shutdown_script"),
    )
)
# Those of them that are run.
_SCRIPTS = _COMMANDS - {"regex", "process"}
# As whom keepalived runs scripts where nothing is said, if there is such a user.
_SCRIPT_USER = "keepalived_script"
# Blocks that hold a password, and what their statements begin with.
_GUARDED = frozenset(("authentication", "SSL"))
_GUARDED_KEYWORDS = _GUARDED | {"auth_type", "auth_pass", "password", "ca", "certificate", "key"}
_ESCAPED_QUOTES = re.compile(r'"((?:[^"\\\']|\\")*\\"(?:[^"\\\']|\\")*)"')
_SYNC_OPTIONS = {"id": "syncid", "maxlen": "maxlen", "port": "port", "ttl": "ttl"}
# What tells one director from another in files that are otherwise alike.
_OWN = frozenset(("unicast_src_ip", "unicast_peer", "mcast_src_ip"))
_OF_SECTION = {keyword: (key, kind) for key, (keyword, kind) in grammar.SECTIONS.items()}


class Note(NamedTuple):
    """Something that an operator must look at.

    words
        The statement, with stars for a password.
    """

    file: str
    line: int
    words: str
    why: str


@dataclass(frozen=True, slots=True)
class Imported:
    """A configuration as pillar: the part that all may see, the one for directors alone, and what
    is to be looked at.
    """

    pillar: Pillar
    secrets: Pillar = field(repr=False)
    notes: tuple[Note, ...]


def to_pillar(
    tree: Tree,
    minion_id: str,
    names: Mapping[str, str] | None = None,
    unknown: Iterable[tuple[str, int, str]] = (),
) -> Imported:
    """Return the pillar for a configuration.

    minion_id
        The director that it is from.

    names
        Minion ids of real servers by address.

    unknown
        Keywords that the director's keepalived does not know: file, line, keyword.
    """
    return _Import(minion_id, _by_address(names or {}), unknown).run(tree)


def read_block(node: Node, table: grammar.Table) -> tuple[Pillar, tuple[Note, ...]]:
    """What a table makes of one block, and the notes on what it could not."""
    reading = _Import("", {}, ())
    found = reading.read(_Statements(node.children or ()), table)
    return found, tuple(reading.notes)


def _by_address(names: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for address, name in names.items():
        try:
            found[str(ipaddress.ip_address(str(address)))] = str(name)
        except ValueError:
            raise InvalidConfig(
                "names", address, "names of real servers by address, such as 10.10.10.41: rs1"
            ) from None
        if not NAME.fullmatch(str(name)):
            raise InvalidConfig(f"names:{address}", name, "a minion id")
    return found


class _UnfitError(Exception):
    """A value that the table has no room for."""


# --------------------------------------------------------------------------------------------------
# Values


def _fitting(kind: grammar.Kind, nodes: Sequence[Node]) -> Any:
    """The pillar's value for statements with one keyword; raises _UnfitError."""
    value = _VALUES[type(kind)](kind, nodes)
    try:
        kind.read(value, "")
    except InvalidConfig as error:
        raise _UnfitError from error
    return value


def _leaf(nodes: Sequence[Node]) -> Node:
    """The only one of some statements, which has no block."""
    # keepalived takes the first of several, or the last, or all: that is for it to decide again.
    if len({node.text for node in nodes}) != 1 or nodes[0].children is not None:
        raise _UnfitError
    return nodes[0]


def _whole(kind: Any, nodes: Sequence[Node]) -> int:
    return _as_whole(_word(nodes))


def _seconds(kind: Any, nodes: Sequence[Node]) -> float:
    word = _word(nodes)
    if not _SECONDS.fullmatch(word):
        raise _UnfitError
    return int(word) if _WHOLE.fullmatch(word) else float(word)


def _as_whole(word: str) -> int:
    if not _WHOLE.fullmatch(word):
        raise _UnfitError
    return int(word)


def _word(nodes: Sequence[Node]) -> str:
    """The only word after a keyword."""
    found = _leaf(nodes).words[1:]
    if len(found) != 1:
        raise _UnfitError
    return found[0]


def _flag(kind: Any, nodes: Sequence[Node]) -> bool:
    if len(_leaf(nodes).words) != 1:
        raise _UnfitError
    return True


def _switch(kind: Any, nodes: Sequence[Node]) -> bool:
    found = _leaf(nodes).words[1:]
    if not found or (len(found) == 1 and found[0] in _ON):
        return True
    if len(found) == 1 and found[0] in _OFF:
        return False
    raise _UnfitError


def _text(kind: Any, nodes: Sequence[Node]) -> str:
    return _spelt_behind(_leaf(nodes))


def _choice(kind: Any, nodes: Sequence[Node]) -> str:
    return _word(nodes)


def _maybe(kind: grammar.Maybe, nodes: Sequence[Node]) -> Any:
    return True if len(_leaf(nodes).words) == 1 else _fitting(kind.kind, nodes)


def _words(kind: grammar.Words, nodes: Sequence[Node]) -> list[Any]:
    node = _leaf(nodes)
    parts = [_part(node, word) for word in node.words[1:]]
    if not parts:
        raise _UnfitError
    return [_fitting(kind.of, [part]) for part in parts]


def _part(node: Node, word: str) -> Node:
    """A statement with one of another's words."""
    return Node(f'{node.keyword} "{word}"' if not _is_plain(word) else f"x {word}", node.where)


def _repeated(kind: grammar.Repeated, nodes: Sequence[Node]) -> list[Any]:
    return [_fitting(kind.of, [node]) for node in nodes]


def _lines(kind: grammar.Lines, nodes: Sequence[Node]) -> list[str]:
    lines = [_childless(line) for node in nodes for line in _inside(node)]
    if nodes[0].keyword == "group":
        # Names, one or several on a line.
        return [_spelt(word) for line in lines for word in line.words]
    return [_spelt(line.text) for line in lines]


def _childless(node: Node) -> Node:
    if node.children is not None:
        raise _UnfitError
    return node


def _inside(node: Node) -> tuple[Node, ...]:
    """What is in a block that has a keyword only."""
    if node.children is None or len(node.words) != 1:
        raise _UnfitError
    return node.children


def _tracked(kind: grammar.Tracked, nodes: Sequence[Node]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in (line for node in nodes for line in _inside(node)):
        name, *options = _childless(line).words
        if name in found:
            raise _UnfitError
        found[name] = _weighed(options)
    return found


def _weighed(options: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if options[:1] == ["weight"] and len(options) > 1:
        found["weight"] = _as_whole(options[1])
        options = options[2:]
    if list(options) == ["reverse"]:
        found["reverse"] = True
    elif list(options) not in ([], ["noreverse"], ["no_reverse"]):
        raise _UnfitError
    return found


def _block(kind: grammar.Block, nodes: Sequence[Node]) -> Any:
    # Blocks are read by _Import, which has somewhere to put what does not fit.
    raise _UnfitError


_VALUES: Mapping[type, Callable[[Any, Sequence[Node]], Any]] = {
    grammar.Whole: _whole,
    grammar.Seconds: _seconds,
    grammar.WholeSeconds: _whole,
    grammar.Flag: _flag,
    grammar.Switch: _switch,
    grammar.Text: _text,
    grammar.Line: _text,
    grammar.Choice: _choice,
    grammar.Address: _choice,
    grammar.Multicast: _choice,
    grammar.Maybe: _maybe,
    grammar.Words: _words,
    grammar.Repeated: _repeated,
    grammar.Lines: _lines,
    grammar.Tracked: _tracked,
    grammar.Block: _block,
}


def _is_plain(word: str) -> bool:
    return bool(re.fullmatch(r"[^\s\"'{}#!\\]+", word))


def _spelt_behind(node: Node) -> str:
    """What follows a keyword, as the pillar may say it."""
    found = _ESCAPED_QUOTES.fullmatch(node.rest)
    if found and node.keyword in _COMMANDS:
        # To these keywords single quotes mean the same, and need no backslashes.
        inside = found[1].replace('\\"', '"')
        return _spelt(f"'{inside}'")
    return _spelt(node.rest)


def _spelt(text: str) -> str:
    """A text as the pillar may say it; raises _UnfitError if there is no way."""
    if keywords.is_sound(text):
        return text
    raise _UnfitError


# --------------------------------------------------------------------------------------------------
# Blocks


class _Statements:
    """The statements of a block by keyword, until somebody takes them."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._nodes: dict[str, list[Node]] = {}
        for node in nodes:
            self.put(node)

    def take(self, keyword: str) -> list[Node]:
        """The statements with a keyword."""
        return self._nodes.pop(keyword, [])

    def put(self, node: Node) -> None:
        """Give one back."""
        self._nodes.setdefault(SYNONYMS.get(node.keyword, node.keyword), []).append(node)

    def left(self) -> Iterator[tuple[str, list[Node]]]:
        """What nobody has taken, by keyword."""
        yield from list(self._nodes.items())


class _Import:
    """One configuration on its way into a pillar."""

    def __init__(
        self, minion_id: str, names: Mapping[str, str], unknown: Iterable[tuple[str, int, str]]
    ) -> None:
        self.minion_id = minion_id
        self.names = names
        self.unknown = set(unknown)
        self.notes: list[Note] = []
        self.secrets: Pillar = {}
        self.groups: dict[str, Node] = {}
        self.used_groups: set[str] = set()
        self.extra: list[Node] = []
        self.weights: frozenset[str] = frozenset()
        self.real_servers: dict[str, Pillar] = {}
        self.own_instances: Pillar = {}
        self.lvs: Pillar = {}
        self.mails = False
        self.global_defs: Pillar = {}
        self.guarded: frozenset[Where] = frozenset()

    def run(self, tree: Tree) -> Imported:
        self.guarded = frozenset(_guarded(tree.nodes))
        self.notes += [
            Note(remark.where.file, remark.where.line, remark.text, remark.why)
            for remark in tree.remarks
        ]
        statements = _Statements(
            node for node in self._understood(tree.nodes) if not _is_our_weight(node)
        )
        self.weights = frozenset(
            node.words[1] for node in tree.nodes if _is_our_weight(node) and len(node.words) > 1
        )
        keepalived: Pillar = {}
        director: Pillar = {}
        self._global_defs(statements.take("global_defs"), keepalived, director)
        self.global_defs = keepalived.get("global_defs", {})
        self._remember_groups(statements)
        instances = self._named(statements.take("vrrp_instance"), self._vrrp_instance)
        servers = self._virtual_servers(statements.take("virtual_server"))
        self._sections(statements, keepalived)
        self._script_security(tree.nodes, keepalived)
        lvs = {
            "directors": {self.minion_id: self._director(director)},
            "real_servers": self.real_servers,
            "vrrp_instances": instances,
            **self.lvs,
            "virtual_servers": servers,
            "keepalived": keepalived,
        }
        public, hidden = self._parted({key: value for key, value in lvs.items() if value})
        secrets: Pillar = {"lvs_secrets": self.secrets} if self.secrets else {}
        if hidden:
            secrets["lvs"] = hidden
        return Imported({"lvs": public}, secrets, tuple(self.notes))

    # Notes

    def note(self, node: Node, why: str) -> None:
        """Tell of a statement."""
        words = _keyword_alone(node) if node.where in self.guarded else _shown(node)
        self.notes.append(Note(node.where.file, node.where.line, words, why))

    def _understood(self, nodes: Iterable[Node]) -> list[Node]:
        """Statements that mean what they show, with what is in them."""
        return [
            node
            if node.children is None
            else Node(node.text, node.where, tuple(self._understood(node.children)), node.comment)
            for node in nodes
            if self._understands(node)
        ]

    def _understands(self, node: Node) -> bool:
        if node.why:
            self.note(node, f"not taken over: {node.why}")
        elif not node.words or not node.words[0]:
            self.note(node, "not taken over: it has no keyword")
        elif self._is_unknown(node):
            self.note(node, "not taken over: keepalived does not know this keyword")
        else:
            return True
        return False

    def _is_unknown(self, node: Node) -> bool:
        file, line = node.where.file, node.where.line
        return any(
            number == line
            and keyword == node.keyword
            and (not name or file == name or file.endswith(f"/{name}"))
            for name, number, keyword in self.unknown
        )

    # Any block

    def read(self, statements: _Statements, table: grammar.Table) -> Pillar:
        """What a table knows, and ``extra`` for the rest."""
        found: Pillar = {}
        extra: list[Node] = []
        for keyword, nodes in statements.left():
            try:
                found[keyword] = self._value(table[keyword], nodes)
            except (KeyError, _UnfitError):
                extra += nodes
        raw = self._raw(extra)
        return {
            **{keyword: found[keyword] for keyword in table if keyword in found},
            **({"extra": raw} if raw else {}),
        }

    def _value(self, kind: grammar.Kind, nodes: Sequence[Node]) -> Any:
        if isinstance(kind, grammar.Block):
            if len(nodes) != 1:
                raise _UnfitError
            return self.read(_Statements(_inside(nodes[0])), kind.table)
        if isinstance(kind, grammar.Repeated) and isinstance(kind.of, grammar.Block):
            return [self._value(kind.of, [node]) for node in nodes]
        if isinstance(kind, grammar.Named):
            return self._named_blocks(kind, nodes)
        return _fitting(kind, nodes)

    def _named_blocks(self, kind: grammar.Named, nodes: Sequence[Node]) -> Pillar:
        found: Pillar = {}
        for node in nodes:
            if len(node.words) != 2 or node.children is None or not NAME.fullmatch(node.words[1]):
                raise _UnfitError
            if node.words[1] in found:
                raise _UnfitError
            found[node.words[1]] = self.read(_Statements(node.children), kind.table)
        return found

    def _raw(self, nodes: Iterable[Node]) -> Pillar:
        """Statements as raw keyword trees."""
        found: dict[str, list[Any]] = {}
        for node in nodes:
            try:
                keyword, value = self._raw_entry(node)
            except _UnfitError:
                self.note(node, "not taken over: the pillar has no way to say it")
            else:
                found.setdefault(keyword, []).append(value)
        return {
            keyword: values[0] if len(values) == 1 else values for keyword, values in found.items()
        }

    def _raw_entry(self, node: Node) -> tuple[str, Any]:
        value: Any
        if node.children is not None:
            keyword, value = _spelt(node.text), self._raw(node.children)
        else:
            keyword = _spelt(node.keyword)
            value = _spelt_behind(node) if node.rest else True
        if keyword[0] in "@$~":
            raise _UnfitError
        return keyword, value

    def _named(
        self, nodes: Iterable[Node], build: Callable[[str, Node], Pillar]
    ) -> dict[str, Pillar]:
        """Blocks that have a name, by that."""
        found: dict[str, Pillar] = {}
        for node in nodes:
            name = node.words[1] if len(node.words) == 2 else ""
            if node.children is None or not NAME.fullmatch(name) or name in found:
                self.note(node, "not taken over: it needs a block and a name of its own")
            else:
                found[name] = build(name, node)
        return found

    def _take_word(self, statements: _Statements, keyword: str, default: str = "") -> str:
        """The first word after a keyword that counts once."""
        nodes = statements.take(keyword)
        if len({node.text for node in nodes}) > 1:
            self.note(nodes[-1], f"{keyword} is there more than once: the last one is taken")
        return nodes[-1].words[1] if nodes and len(nodes[-1].words) > 1 else default

    # Sections

    def _sections(self, statements: _Statements, keepalived: Pillar) -> None:
        """Blocks and keywords beside the ones that make directors and virtual servers."""
        extra: list[Node] = [
            node for name, node in self.groups.items() if name not in self.used_groups
        ]
        extra += self.extra
        for node in statements.take("SSL"):
            statements.put(self._without_password(node))
        for node in statements.take("vrrp_sync_group"):
            members = _members(node)
            if len(members) > 1:
                statements.put(node)
            elif members:
                extra.append(node)
            else:
                self.note(node, "not taken over: the group has no members")
        for keyword, nodes in statements.left():
            key, kind = _OF_SECTION.get(keyword, ("", None))
            if key in demands.NEEDED:
                needed, _ = demands.NEEDED[key]
                extra += [node for node in nodes if not _says(node, needed)]
                nodes = [node for node in nodes if _says(node, needed)]
                if not nodes:
                    continue
            try:
                if kind is None:
                    raise _UnfitError
                keepalived[key] = self._value(kind, nodes)
            except _UnfitError:
                extra += nodes
        raw = self._raw(extra)
        if raw:
            keepalived["extra"] = raw

    def _script_security(self, nodes: Iterable[Node], keepalived: Pillar) -> None:
        """What the pillar wants to be told where scripts run, and a file may leave out."""
        told = keepalived.get("global_defs", {})
        script = next((node for node in _all(nodes) if node.keyword in _SCRIPTS), None)
        secure = bool(told.get("enable_script_security"))
        user = str(told.get("script_user", "root")).split()[0]
        put: Pillar
        if secure and "script_user" not in told:
            put, node = {"script_user": _SCRIPT_USER}, None
        elif script is not None and not secure and user == "root":
            put, node = {"script_user": "root", "enable_script_security": True}, script
        else:
            return
        keepalived["global_defs"] = {**put, **told}
        words = ", ".join(f"{keyword}: {value}" for keyword, value in put.items())
        why = f"keepalived.global_defs has {words} now, without which scripts are not accepted"
        if node is None:
            self.notes.append(Note("", 0, "enable_script_security", why))
        else:
            self.note(node, why)

    def _without_password(self, node: Node) -> Node:
        """The block of keepalived's own certificate, whose password is a secret."""
        left = []
        for child in node.children or ():
            if child.keyword == "password" and len(child.words) == 2:
                self.secrets["keepalived"] = {"ssl": {"password": child.words[1]}}
            else:
                left.append(child)
        return Node(node.text, node.where, tuple(left), node.comment)

    def _global_defs(self, nodes: Iterable[Node], keepalived: Pillar, director: Pillar) -> None:
        statements = _Statements(child for node in nodes for child in node.children or ())
        for keyword in sorted(_FIFOS):
            for node in statements.take(keyword):
                if node.words[1:] in ((fifos.VRRP,), (fifos.LVS,)):
                    continue
                self.note(
                    node,
                    "not taken over: a pipe of the director takes its place, and what reads this "
                    "one hears nothing any more",
                )
        # Ours always has it on.
        for node in statements.take("vrrp_notify_priority_changes"):
            if node.words[1:2] and node.words[1] in _OFF:
                self.note(node, "not taken over: changes of priority are always told")
        router = statements.take("router_id")
        if router and len(router[-1].words) > 1 and NAME.fullmatch(router[-1].words[1]):
            director["router_id"] = router[-1].words[1]
        elif router:
            self.note(router[-1], "not taken over: a router_id is one word in the pillar")
        for node in statements.take("lvs_sync_daemon"):
            self._sync_daemon(node)
        self._alerts(statements)
        found = self.read(statements, grammar.GLOBAL_DEFS)
        if found:
            keepalived["global_defs"] = found

    def _alerts(self, statements: _Statements) -> None:
        """Who gets mail, where that is all said in a way that the pillar checks."""
        kinds: Mapping[str, grammar.Kind] = {
            "notification_email": grammar.Lines(),
            "notification_email_from": grammar.Text(),
            "smtp_server": grammar.Text(),
            "smtp_connect_timeout": grammar.Whole(1, 3600),
        }
        taken = {keyword: statements.take(keyword) for keyword in kinds}
        try:
            found = {
                keyword: _fitting(kinds[keyword], nodes)
                for keyword, nodes in taken.items()
                if nodes
            }
        except _UnfitError:
            found = {}
        mails = found.get("notification_email", [])
        senders = [found["notification_email_from"]] if "notification_email_from" in found else []
        if (
            mails
            and all(_is_mail(address) for address in [*mails, *senders])
            and NAME.fullmatch(found.get("smtp_server", ""))
        ):
            self.lvs["alerts"] = {"by": "keepalived", **found}
            self.mails = True
            return
        for nodes in taken.values():
            for node in nodes:
                statements.put(node)

    def _sync_daemon(self, node: Node) -> None:
        """``lvs_sync_daemon INTERFACE [[inst] INSTANCE] [id N] ...``"""
        given = list(node.words[1:])
        found: Pillar = {"interface": given.pop(0) if given else ""}
        try:
            while given:
                word = given.pop(0)
                if word in _SYNC_OPTIONS:
                    found[_SYNC_OPTIONS[word]] = _as_whole(given.pop(0))
                elif word == "group":
                    found["group"] = given.pop(0)
                else:
                    found["vrrp_instance"] = given.pop(0) if word == "inst" else word
        except (IndexError, _UnfitError):
            self.note(node, "not taken over: its words are not as in the manual")
            return
        self._set_sync_daemon(node, found)

    def _set_sync_daemon(self, node: Node, found: Pillar) -> None:
        if not INTERFACE.fullmatch(found["interface"]) or "sync_daemon" in self.lvs:
            self.note(node, "not taken over: there is one sync daemon, on one interface")
        else:
            self.lvs["sync_daemon"] = found

    def _director(self, own: Pillar) -> Pillar:
        """What is this director's alone."""
        shared = [
            (instance["state"], instance["priority"]) for instance in self.own_instances.values()
        ]
        if shared and len(set(shared)) == 1:
            own = {**own, "state": shared[0][0], "priority": shared[0][1]}
            for instance in self.own_instances.values():
                del instance["state"], instance["priority"]
        instances = {name: entry for name, entry in self.own_instances.items() if entry}
        return {**own, "vrrp_instances": instances} if instances else own

    # VRRP

    def _vrrp_instance(self, name: str, node: Node) -> Pillar:
        statements = _Statements(node.children or ())
        found: Pillar = {}
        interface = self._take_word(statements, "interface")
        if interface:
            found["interface"] = interface
        for keyword in ("virtual_router_id", "priority", "advert_int"):
            value = self._number_of(statements, keyword)
            if value is not None:
                found[keyword] = value
        own = {
            "state": self._take_word(statements, "state", "BACKUP"),
            "priority": found.pop("priority", None),
        }
        strict = self._is_strict(statements)
        if own["priority"] is None:
            # vrrp.c of 2.2: who begins as MASTER without a priority is the addresses' owner.
            owner = own["state"] == "MASTER"
            own["priority"] = instances.MAX_PRIORITY if owner else PRIORITY
        again: Pillar = {}
        for keyword in ("virtual_ipaddress", "virtual_ipaddress_excluded"):
            addresses, more = self._addresses(statements.take(keyword))
            if addresses:
                found[keyword] = addresses
            if more:
                again[keyword] = self._raw(more)
        self._authentication(name, statements.take("authentication"), found)
        for old in statements.take("lvs_sync_daemon_interface"):
            self._set_sync_daemon(
                old, {"interface": "".join(old.words[1:2]), "vrrp_instance": name, "syncid": 0}
            )
        if strict:
            self._strict(name, node, own)
        if own["state"] == "MASTER":
            self._without_waiting(statements)
        self._without_neighbours(statements)
        self._as_keepalived_sets_it(statements)
        rest = self.read(statements, grammar.VRRP_INSTANCE)
        if self.mails:
            # With mail by keepalived the pillar's default is to send some.
            rest.setdefault("smtp_alert", self._sends_mail("smtp_alert_vrrp"))
        if again:
            rest["extra"] = {**rest.get("extra", {}), **again}
        own.update((key, rest.pop(key)) for key in _OWN if key in rest)
        self.own_instances[name] = own
        return {**found, **rest}

    def _without_waiting(self, statements: _Statements) -> None:
        """Take out what keepalived clears where an instance starts as MASTER."""
        for keyword in ("nopreempt", "preempt_delay"):
            for node in statements.take(keyword):
                self.note(node, "not taken over: without effect, because the state is MASTER")

    def _sends_mail(self, keyword: str) -> bool:
        """Whether mail is sent where an instance or a virtual server says nothing of it."""
        return bool(self.global_defs.get(keyword, self.global_defs.get("smtp_alert", False)))

    def _is_strict(self, statements: _Statements) -> bool:
        nodes = statements.take("strict_mode")
        for node in nodes:
            statements.put(node)
        return (
            nodes[-1].words[1:2] != ("off",) if nodes else bool(self.global_defs.get("vrrp_strict"))
        )

    def _strict(self, name: str, node: Node, own: Pillar) -> None:
        """Take out what keepalived ignores where VRRP is strict."""
        if own["state"] == "MASTER" and own["priority"] != instances.MAX_PRIORITY:
            own["state"] = "BACKUP"
            self.note(node, "state BACKUP here: keepalived makes it so where VRRP is strict")
        if self.secrets.get("vrrp_instances", {}).pop(name, None):
            self.note(node, "the password is not taken over: strict VRRP has none")
            if not self.secrets["vrrp_instances"]:
                del self.secrets["vrrp_instances"]

    def _as_keepalived_sets_it(self, statements: _Statements) -> None:
        """Say what keepalived changes by itself, with a complaint."""
        found = {
            keyword: statements.take(keyword)
            for keyword in ("nopreempt", "preempt_delay", "use_vmac", "unicast_peer")
        }
        base = statements.take("vmac_xmit_base")
        if found["nopreempt"] and found["preempt_delay"]:
            for node in found.pop("preempt_delay"):
                self.note(node, "not taken over: without effect, because of nopreempt")
        if found["use_vmac"] and found["unicast_peer"] and not base:
            base = [Node("vmac_xmit_base", found["use_vmac"][0].where)]
            self.note(base[0], "put in: keepalived sets it with use_vmac and unicast_peer")
        for node in (node for nodes in (*found.values(), base) for node in nodes):
            statements.put(node)

    def _without_neighbours(self, statements: _Statements) -> None:
        """Say as multicast what keepalived takes for it, as it has nobody to speak to alone."""
        peers = statements.take("unicast_peer")
        for node in peers:
            statements.put(node)
        if peers:
            return
        for keyword in demands.NEED_UNICAST:
            for node in statements.take(keyword):
                self.note(node, "without unicast_peer, keepalived speaks by multicast: so here too")
                if keyword == "unicast_src_ip":
                    statements.put(Node(f"mcast_src_ip {node.rest}", node.where))

    def _number_of(self, statements: _Statements, keyword: str) -> float | None:
        nodes = statements.take(keyword)
        if not nodes:
            return None
        if len({node.text for node in nodes}) > 1:
            self.note(nodes[-1], f"{keyword} is there more than once: the last one is taken")
        try:
            return _seconds(None, nodes[-1:])
        except _UnfitError:
            self.note(nodes[-1], "not taken over: it takes one number")
            return None

    def _addresses(self, nodes: Iterable[Node]) -> tuple[list[Any], list[Node]]:
        """VIPs, and the lines that have one of them again, with another label."""
        found: list[Any] = []
        again: list[Node] = []
        seen: set[str] = set()
        for line in (line for node in nodes for line in node.children or ()):
            try:
                vip = _virtual_address(_childless(line))
            except _UnfitError:
                self.note(line, "not taken over: it is no address with its options")
                continue
            address = vip if isinstance(vip, str) else vip["address"]
            if address in seen:
                again.append(line)
            else:
                found.append(vip)
            seen.add(address)
        return found, again

    def _authentication(self, name: str, nodes: Iterable[Node], found: Pillar) -> None:
        for node in nodes:
            statements = _Statements(node.children or ())
            kind = self._take_word(statements, "auth_type")
            passwords = statements.take("auth_pass")
            for left in (left for _, several in statements.left() for left in several):
                self.note(left, "not taken over: the pillar knows auth_type and auth_pass")
            if kind == "AH":
                found["auth_type"] = "AH"
            if passwords:
                self._password(name, passwords[-1])

    def _password(self, name: str, node: Node) -> None:
        # Only the first eight characters count: keepalived.conf(5).
        password = "".join(node.words[1:2])[:8]
        if not re.fullmatch(model.AUTH_PASS, password):
            self.note(node, "not taken over: no password that the pillar can hold")
            return
        if password != "".join(node.words[1:]):
            self.note(node, "only the first eight characters count, and are taken over")
        self.secrets.setdefault("vrrp_instances", {})[name] = {"auth_pass": password}

    # Virtual servers

    def _remember_groups(self, statements: _Statements) -> None:
        for node in statements.take("virtual_server_group"):
            self.groups["".join(node.words[1:2])] = node

    def _virtual_servers(self, nodes: Iterable[Node]) -> dict[str, Pillar]:
        found: dict[str, Pillar] = {}
        for node in nodes:
            if node.children is None:
                self.note(node, "not taken over: it has no block")
                continue
            statements = _Statements(node.children)
            protocol = self._take_word(statements, "protocol", "TCP").lower()
            try:
                key = self._key(node, protocol)
            except _UnfitError:
                self.note(node, "taken over as it stands, in extra: the pillar has no other way")
                self.extra.append(node)
                continue
            name = _new(_name_of(node, key), found)
            found[name] = self._virtual_server(key, statements)
        return found

    def _key(self, node: Node, protocol: str) -> Pillar:
        """What a virtual server listens on."""
        first, *rest = [*node.words[1:], ""][:3]
        second = rest[0] if rest else ""
        if first == "fwmark":
            return {"fwmark": _as_whole(second)}
        if first == "group":
            return {"group": self._group(second), "protocol": protocol}
        key: Pillar = {"address": _address(first), "protocol": protocol}
        if second:
            key["port"] = _as_whole(second)
        return key

    def _group(self, name: str) -> list[str]:
        node = self.groups.get(name)
        if node is None or node.children is None:
            raise _UnfitError
        found = [_spelt(_childless(line).text) for line in node.children]
        try:
            groups.read([(line, "group:0") for line in found])
        except InvalidConfig as error:
            raise _UnfitError from error
        self.used_groups.add(name)
        return found

    def _virtual_server(self, key: Pillar, statements: _Statements) -> Pillar:
        forward = statements.take("lvs_method")
        found: Pillar = {
            **key,
            "managed_by": "keepalived",
            "scheduler": self._take_word(statements, "lvs_sched", "wlc"),
            **self._forward(forward[-1] if forward else None),
        }
        flags = [word for keyword, word in _FLAGS.items() if statements.take(keyword)]
        if flags:
            found["scheduler_flags"] = flags
        if statements.take("ops"):
            found["one_packet"] = True
        self._persistence(statements, found)
        delay = self._number_of(statements, "delay_loop")
        found["check"] = {"interval": DELAY_LOOP_SECONDS if delay is None else delay}
        inhibit = statements.take("inhibit_on_failure")
        found["on_failure"] = "drain" if inhibit else "remove"
        self._sorry_server(statements, found)
        real_servers = statements.take("real_server")
        found.update(self.read(statements, grammar.VIRTUAL_SERVER))
        if self.mails:
            found.setdefault("smtp_alert", self._sends_mail("smtp_alert_checker"))
        found["real_servers"] = self._shares(real_servers)
        return found

    def _forward(self, node: Node | None) -> Pillar:
        """How packets reach the real servers; keepalived's own default is NAT."""
        method, *options = node.words[1:] if node is not None else ("NAT",)
        found: Pillar = {"forward": _FORWARDS.get(method, method)}
        while options:
            word = options.pop(0)
            if word == "type" and options:
                found["tunnel_type"] = options.pop(0)
            elif word == "port" and options:
                found["tunnel_port"] = int(options.pop(0))
            elif word in ("csum", "remcsum"):
                found["tunnel_checksum"] = word
        return found

    def _persistence(self, statements: _Statements, found: Pillar) -> None:
        nodes = statements.take("persistence_timeout")
        if nodes:
            word = "".join(nodes[-1].words[1:2])
            found["persistence"] = int(word) if _WHOLE.fullmatch(word) else PERSISTENCE_SECONDS
        granularity = self._take_word(statements, "persistence_granularity")
        if granularity:
            found["netmask"] = _prefix(granularity)
        engine = self._take_word(statements, "persistence_engine")
        if engine:
            found["persistence_engine"] = engine

    def _sorry_server(self, statements: _Statements, found: Pillar) -> None:
        for node in statements.take("sorry_server"):
            try:
                found["sorry_server"] = {"address": _address("".join(node.words[1:2]))}
                if len(node.words) > 2:
                    found["sorry_server"]["port"] = _as_whole(node.words[2])
            except _UnfitError:
                self.note(node, "not taken over: its address is not as in the manual")

    # Real servers

    def _shares(self, nodes: Iterable[Node]) -> dict[str, Pillar]:
        found: dict[str, Pillar] = {}
        for node in nodes:
            try:
                address = _address("".join(node.words[1:2]))
                port = _as_whole(node.words[2]) if len(node.words) > 2 else None
            except _UnfitError:
                self.note(node, "not taken over: its address is not as in the manual")
                continue
            name = self._real_server(address, port, found)
            share = self._share(node.children or ())
            found[name] = {**({} if port is None else {"port": port}), **share}
        return found

    def _real_server(self, address: str, port: int | None, taken: Mapping[str, Any]) -> str:
        """The name of a real server, which is one for each address, and more where a virtual server
        has several ports of it.
        """
        known = self.names.get(address)
        name = known or f"rs-{address}"
        if name in taken:
            name, known = _new(f"rs-{address}-{port}", taken), None
        self.real_servers[name] = (
            {"address": address}
            if known
            else {
                "address": address,
                "minion": False,
            }
        )
        return name

    def _share(self, inside: Sequence[Node]) -> Pillar:
        statements = _Statements(inside)
        found: Pillar = {}
        for keyword, key in (
            ("weight", "weight"),
            ("uthreshold", "upper_threshold"),
            ("lthreshold", "lower_threshold"),
        ):
            value = self._number_of(statements, keyword)
            if value is not None:
                found[key] = value
        found.setdefault("weight", 1)
        checkers = [node for node in inside if node.keyword in grammar.CHECKERS]
        for kind in grammar.CHECKERS:
            statements.take(kind)
        found.update(self.read(statements, grammar.REAL_SERVER))
        found["checkers"] = [
            {node.keyword: self._checker(node)} for node in checkers if not self._is_ours(node)
        ]
        return found

    def _is_ours(self, node: Node) -> bool:
        """Whether a check reads a weight that the pillar stands for already."""
        return node.keyword == "FILE_CHECK" and any(
            child.keyword == "track_file" and child.words[1:2] and child.words[1] in self.weights
            for child in node.children or ()
        )

    def _checker(self, node: Node) -> Pillar:
        return self.read(_Statements(node.children or ()), grammar.CHECKERS[node.keyword])

    # Secrets

    def _parted(self, tree: Mapping[str, Any]) -> tuple[Pillar, Pillar]:
        """A tree without the passwords in it, and those alone."""
        public: Pillar = {}
        hidden: Pillar = {}
        for key, value in tree.items():
            if isinstance(value, Mapping):
                public[key], below = self._parted(value)
                if below:
                    hidden[key] = below
            elif is_password_keyword(str(key)) and value is not True:
                hidden[key] = value
            else:
                public[key] = self._listed(value)
        return public, hidden

    def _listed(self, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        found = []
        for item in value:
            public, hidden = self._parted(item) if isinstance(item, Mapping) else (item, {})
            if hidden:
                self.notes.append(
                    Note(
                        "", 0, " ".join(hidden) + f" {MASK}", "not taken over: a password in a list"
                    )
                )
            found.append(public)
        return found


def _shown(node: Node) -> str:
    """A statement without its password."""
    keyword = node.keyword if node.words else ""
    if is_password_keyword(keyword) and node.children is None:
        return f"{keyword} {MASK}"
    text = node.text if node.text.isprintable() else ascii(node.text)[1:-1]
    return f"{text} {{" if node.children is not None else text


def _all(nodes: Iterable[Node]) -> Iterator[Node]:
    """Statements with all that is in them."""
    for node in nodes:
        if node.words:
            yield node
        yield from _all(node.children or ())


def _guarded(nodes: Iterable[Node]) -> Iterator[Where]:
    """Where statements stand that a password may be in, whatever keyword is before it."""
    for node in _all(nodes):
        if node.keyword in _GUARDED:
            yield from (inside.where for inside in _all([node]))


def _keyword_alone(node: Node) -> str:
    """A statement by its keyword, if that is one: a password may stand on a line of its own."""
    keyword = node.keyword if node.words else ""
    alone = keyword in _GUARDED_KEYWORDS and len(node.words) == 1
    return keyword if alone else f"{keyword if keyword in _GUARDED_KEYWORDS else ''} {MASK}".strip()


def _says(node: Node, keyword: str) -> bool:
    """Whether a block has a keyword, by any of its names."""
    inside = (child.keyword for child in node.children or () if child.words)
    return any(SYNONYMS.get(word, word) == keyword for word in inside)


def _is_our_weight(node: Node) -> bool:
    """Whether a track_file is one that keepalived.conf has for the pillar's weights."""
    return node.keyword == "track_file" and any(
        child.keyword == "file" and child.rest.startswith(f"{trackfiles.FOLDER}/")
        for child in node.children or ()
    )


def _members(node: Node) -> list[str]:
    """The VRRP instances of a sync group."""
    return [
        word
        for block in node.children or ()
        if block.keyword == "group"
        for line in block.children or ()
        for word in line.words
    ]


def _is_mail(address: str) -> bool:
    local, _, domain = address.partition("@")
    return bool(local and domain and NAME.fullmatch(address) and "@" not in domain)


def _address(word: str) -> str:
    try:
        return str(ipaddress.ip_address(word))
    except ValueError:
        raise _UnfitError from None


def _virtual_address(node: Node) -> Any:
    """A VIP: its address alone, or a mapping with its options too."""
    address, *options = node.words
    try:
        interface = ipaddress.ip_interface(address)
    except ValueError:
        raise _UnfitError from None
    found: Pillar = {"address": str(interface.ip)}
    if interface.network.prefixlen != interface.max_prefixlen:
        found["prefix"] = interface.network.prefixlen
    while options:
        word = options.pop(0)
        key = "interface" if word == "dev" else word.removeprefix("-")
        if key != "interface" and key not in grammar.VIRTUAL_ADDRESS:
            raise _UnfitError
        alone = isinstance(grammar.VIRTUAL_ADDRESS.get(key), grammar.Flag)
        if not alone and not options:
            raise _UnfitError
        found[key] = True if alone else options.pop(0)
    return found["address"] if len(found) == 1 else found


def _prefix(mask: str) -> int:
    """A prefix length from a mask of IPv4, or from itself."""
    if _WHOLE.fullmatch(mask):
        return int(mask)
    try:
        return ipaddress.ip_network(f"0.0.0.0/{mask}").prefixlen
    except ValueError:
        return 32


def _name_of(node: Node, key: Pillar) -> str:
    """A virtual server's name: its group's, which keepalived's messages have; a comment of one word
    above it; or what it listens on.
    """
    if "group" in key:
        return _fit(node.words[2])
    if NAME.fullmatch(node.comment):
        return node.comment
    if "fwmark" in key:
        return f"fwmark-{key['fwmark']}"
    return f"{key['protocol']}-{key['address']}-{key.get('port', 'any')}"


def _fit(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.:@+-]", "-", name).lstrip(".:@+-")[:64] or "group"


def _new(name: str, taken: Mapping[str, Any]) -> str:
    """A name that nobody has yet."""
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    return found


def joined(below: Mapping[str, Any], above: Mapping[str, Any]) -> Pillar:
    """Two pillars as Salt joins them: mappings key by key."""
    found = dict(below)
    for key, value in above.items():
        under = found.get(key)
        both = isinstance(value, Mapping) and isinstance(under, Mapping)
        found[key] = joined(under or {}, value) if both else value
    return found


# --------------------------------------------------------------------------------------------------
# Several directors


@dataclass(frozen=True, slots=True)
class Merged:
    """One pillar of several directors' parts.

    disagreements
        Where they differ in what one cluster can have once only: path, and what each says.
    """

    pillar: Pillar
    disagreements: tuple[str, ...]


def merge(parts: Mapping[str, Mapping[str, Any]]) -> Merged:
    """Put the pillars together that :func:`to_pillar` made for several directors.

    What differs in a VRRP instance or in ``keepalived`` goes to the director that says it. For all
    else the first director's word stands, and the difference is told.

    parts
        The pillars (with ``lvs``) by minion id.
    """
    merging = _Merging({minion_id: part.get("lvs", {}) for minion_id, part in parts.items()})
    return Merged({"lvs": merging.run()}, tuple(merging.disagreements))


class _Merging:
    """The pillars of several directors on their way into one."""

    def __init__(self, parts: Mapping[str, Mapping[str, Any]]) -> None:
        self.parts = parts
        self.disagreements: list[str] = []
        self.directors: dict[str, Pillar] = {}

    def run(self) -> Pillar:
        for minion_id, part in self.parts.items():
            self.directors[minion_id] = dict(part.get("directors", {}).get(minion_id, {}))
        merged: Pillar = {"directors": self.directors}
        for key in dict.fromkeys(key for part in self.parts.values() for key in part):
            values = {minion: part[key] for minion, part in self.parts.items() if key in part}
            if key == "vrrp_instances":
                merged[key] = self._own_settings(key, values)
            elif key == "keepalived":
                merged[key] = self._own_keywords(values)
            elif key != "directors":
                merged[key] = self._same(f"lvs:{key}", values)
        return merged

    def _own_settings(self, key: str, values: Mapping[str, Mapping[str, Any]]) -> Pillar:
        """Instances as most have them, with the differences put at the directors."""
        found: Pillar = {}
        for name in dict.fromkeys(name for each in values.values() for name in each):
            entries = {minion: each[name] for minion, each in values.items() if name in each}
            for minion in self.parts.keys() - entries.keys():
                self.disagreements.append(f"lvs:{key}:{name}: {minion} does not have it")
            found[name] = shared = _shared(entries.values())
            shared.setdefault("interface", next(iter(entries.values())).get("interface"))
            for minion, entry in entries.items():
                own = {
                    option: value for option, value in entry.items() if shared.get(option) != value
                }
                if own:
                    place = self.directors[minion].setdefault(key, {}).setdefault(name, {})
                    place.update(own)
        return found

    def _own_keywords(self, values: Mapping[str, Mapping[str, Any]]) -> Pillar:
        """What all say of ``keepalived``, with the differences put at the directors."""
        entries = {minion: values.get(minion, {}) for minion in self.parts}
        shared = _shared(entries.values())
        for minion, entry in entries.items():
            own = {key: value for key, value in entry.items() if key not in shared}
            if own:
                self.directors[minion]["keepalived"] = own
        return shared

    def _same(self, path: str, values: Mapping[str, Any]) -> Any:
        """What all should say alike; mappings key by key."""
        if all(isinstance(value, Mapping) for value in values.values()):
            keys = dict.fromkeys(key for value in values.values() for key in value)
            return {
                key: self._same(
                    f"{path}:{key}",
                    {minion: value[key] for minion, value in values.items() if key in value},
                )
                for key in keys
            }
        first = next(iter(values.values()))
        if any(value != first for value in values.values()):
            said = "; ".join(f"{minion} has {value!r}" for minion, value in values.items())
            self.disagreements.append(f"{path}: {said}")
        return first


def _shared(entries: Iterable[Mapping[str, Any]]) -> Pillar:
    """What all of some mappings say alike."""
    first, *others = entries
    return {
        key: value
        for key, value in first.items()
        if all(key in other and other[key] == value for other in others)
    }


__all__ = ["Imported", "Merged", "Note", "Where", "joined", "merge", "read_block", "to_pillar"]
