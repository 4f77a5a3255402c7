"""Read a keepalived.conf as keepalived reads it: comments gone, files included, conditions decided,
parameters replaced; what is left is a tree of statements, each with the place that it comes from.

Nothing here knows what a keyword means. What the reader cannot be sure of it hands on with the
reason (:attr:`Node.why`), and what keepalived itself leaves out, such as a file that is not there,
is told in :attr:`Tree.remarks`. Sizes are bounded, so that a file from anywhere may be read.

The rules are those of keepalived 2.2: see keepalived.conf(5), "Quoted strings" and "Advanced
configuration". Where the manual and the program differ, the program counts.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from saltext.lvs.errors import LvsError

# keepalived 2.2 reads a line in pieces of this size, and takes the second for a line of its own.
MAX_LINE = 1022
MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_FILES = 1000
MAX_INCLUDES = 20
MAX_DEPTH = 32
MAX_STATEMENTS = 200_000
_MAX_NESTING = 40
_MAX_REPLACEMENTS = 1000
_MAX_ALTERNATIVES = 1000

_WORD = re.compile(r'"([^"]*)"|([^ \t\f\n\r\v"]+)')
_STATEMENT = re.compile(r'(?:"[^"]*"|\$\{[^{}"]*\}|[^{}"])+')
_CONTINUED = re.compile(r"(?:[^\\]|\\.)*\\", re.DOTALL)
_DEFINITION = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)=[ \t]*(.*)", re.DOTALL)
_PARAMETER = re.compile(
    r"\$(?:\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)[ 0-9]*\}"
    r"|(?P<bare>[A-Za-z_][A-Za-z0-9_]*)(?![A-Za-z0-9_])(?=[ \t,)]|\Z))"
)
_SEQUENCE = re.compile(r"~SEQ(x?)[ \t]*\([ \t]*([^ \t,)]+)[ \t]*,([^)]*)\)[ \t]*(.*)", re.DOTALL)
_LIST = re.compile(
    r"~LST[ \t]*\([ \t]*(?:\{(?P<names>[^{}]*)\}|(?P<name>[A-Za-z0-9_]+))[ \t]*,"
    r"(?P<values>[^()]*)\)[ \t]*(?P<rest>.*)",
    re.DOTALL,
)
_GROUPS = re.compile(r"\{([^{}]*)\}")
_INCLUDES = frozenset(
    ("include", "includer", "includem", "includew", "includeb", "includea", "includet")
)
# The program's random numbers are new each time, and after its # or ! it sees a comment.
_UNSAFE = frozenset(("_RANDOM", "_HASH", "_BANG"))


class Unreadable(LvsError):
    """A file that cannot be a keepalived.conf, or not one that we read; with file and line."""


@dataclass(frozen=True, slots=True)
class Where:
    """The place of a statement: where it stands, or where the parameter stands that it is from."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Node:
    """One statement.

    text
        What keepalived sees of it: without comment, parameters replaced.

    children
        The statements of its block; None if it has no block.

    comment
        The comment in the line above, without its sign.

    why
        Why it may mean something else than it seems to; empty for nearly all.
    """

    text: str
    where: Where
    children: tuple[Node, ...] | None = None
    comment: str = ""
    why: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """The words, without the quotes around them."""
        return words(self.text)

    @property
    def keyword(self) -> str:
        """The first word."""
        return self.words[0]

    @property
    def rest(self) -> str:
        """What follows the first word, quotes and all."""
        found = _WORD.match(self.text)
        return self.text[found.end() :].strip() if found else ""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that was left out, and why."""

    where: Where
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Tree:
    """A whole configuration."""

    nodes: tuple[Node, ...]
    remarks: tuple[Remark, ...] = ()
    files: tuple[str, ...] = ()


def words(text: str) -> tuple[str, ...]:
    """The words of a statement as most keywords of keepalived see them."""
    return tuple(found[1] if found[1] is not None else found[2] for found in _WORD.finditer(text))


def read(path: str, config_id: str = "") -> Tree:
    """Read a configuration with all that it includes.

    config_id
        For lines that begin with ``@``: what keepalived's option ``-i`` says, or the first part of
        the machine's name.

    Raises :class:`Unreadable`.
    """
    reader = _Reader(config_id)
    return reader.tree(reader.file(os.path.abspath(path), ()))


def parse(text: str, config_id: str = "", name: str = "keepalived.conf") -> Tree:
    """Read a configuration from a text. What it includes is found from the current folder.

    Raises :class:`Unreadable`.
    """
    reader = _Reader(config_id)
    return reader.tree(reader.lines(text, _Source(name, os.getcwd(), (name,))))


# --------------------------------------------------------------------------------------------------
# Lines


@dataclass(frozen=True, slots=True)
class _Source:
    """A file that is being read: its name, the folder of what it includes, and the files by which
    it was reached.
    """

    name: str
    folder: str
    trail: tuple[str, ...]


@dataclass(slots=True)
class _Line:
    """A line without its comment.

    continued
        It ends with a backslash, which is no part of *text*.
    """

    text: str
    continued: bool
    comment: str
    why: str


@dataclass(slots=True)
class _Statement:
    """A statement or a brace, on its way into the tree."""

    text: str
    where: Where
    comment: str = ""
    why: str = ""


@dataclass(slots=True)
class _Parameter:
    """The lines that take the place of a parameter; one, unless it is a definition of many."""

    lines: list[str] = field(default_factory=list)
    multiline: bool = False


def _clean(raw: str, where: Where) -> _Line:
    """Take the comment off a line, as far as quotes do not protect it."""
    raw = raw.strip(" \t")
    quoted, why, at = False, "", 0
    while at < len(raw):
        character = raw[at]
        if character == '"':
            quoted = not quoted
        elif character == "\\" and at + 1 < len(raw):
            if not quoted and raw[at + 1] in "#!":
                why = "keepalived takes an escaped # or ! for different things in different places"
            at += 1
        elif character == "\\" or (character in "#!" and not quoted):
            break
        at += 1
    if quoted and raw[at:] != "\\":
        raise Unreadable(f"{where}: a double quote has no other one on the same line")
    kept, left = raw[:at].rstrip(" \t"), raw[at:]
    comment = "" if kept or left == "\\" else left.strip("#! \t")
    return _Line(kept, bool(_CONTINUED.fullmatch(left)), comment, why)


class _Reader:
    """The state of reading: definitions, files, and how much there was so far."""

    def __init__(self, config_id: str) -> None:
        self.config_id = config_id
        self.parameters = {"_INSTANCE": _Parameter([config_id])}
        self.remarks: list[Remark] = []
        self.files: list[str] = []
        self.statements = 0

    # Files

    def file(self, path: str, trail: tuple[str, ...]) -> Iterator[_Statement]:
        """The statements of a file and of those that it includes."""
        at = f"{trail[-1]}: " if trail else ""
        real = os.path.realpath(path)
        if real in trail:
            raise Unreadable(f"{at}{path} includes itself")
        if len(trail) >= MAX_INCLUDES or len(self.files) >= MAX_FILES:
            raise Unreadable(f"{at}{path}: too many files are included")
        self.files.append(path)
        yield from self.lines(_content(path), _Source(path, os.path.dirname(real), (*trail, real)))

    def include(self, pattern: str, where: Where, source: _Source) -> Iterator[_Statement]:
        """The statements of all files that a pattern stands for."""
        found = [path for path in _matches(pattern, source.folder) if not path.endswith("/")]
        if not found:
            self.remarks.append(Remark(where, f"include {pattern}", "there is no such file"))
        for path in found:
            why = _unfit(path)
            if why:
                self.remarks.append(Remark(where, f"include {pattern}", f"{path} {why}"))
            else:
                yield from self.file(path, source.trail)

    # Lines

    def lines(self, text: str, source: _Source) -> Iterator[_Statement]:
        """The statements of a text."""
        if "\0" in text:
            raise Unreadable(f"{source.name} is not a text: it has a NUL in it")
        definition: _Parameter | None = None
        comment = ""
        for number, raw in enumerate(text.split("\n"), start=1):
            where = Where(source.name, number)
            if len(raw) > MAX_LINE:
                raise Unreadable(f"{where}: more than {MAX_LINE} characters in a line")
            line = _clean(raw.rstrip("\r"), where)
            if definition is not None:
                definition = _continued(definition, line)
                continue
            if not line.text:
                comment = line.comment
                continue
            definition = self._opened(line)
            if definition is None:
                yield from self._first(self._line(line, where, source), comment)
            comment = ""

    def _opened(self, line: _Line) -> _Parameter | None:
        """The definition of many lines that a line begins, if it does."""
        meant = self._meant(line.text)
        found = _DEFINITION.fullmatch(meant)
        if found is None or not line.continued:
            return None
        first = found[2].strip(" \t")
        parameter = _Parameter([first] if first else [], multiline=True)
        self.parameters[found[1]] = parameter
        return parameter

    def _line(self, line: _Line, where: Where, source: _Source) -> Iterator[_Statement]:
        if line.continued:
            # Only definitions go on in the next line; elsewhere the backslash is a part of the
            # word.
            line.text += "\\"
        for statement in self._expanded(line.text, where, source, 0):
            statement.why = statement.why or line.why
            yield statement

    @staticmethod
    def _first(statements: Iterable[_Statement], comment: str) -> Iterator[_Statement]:
        """Give the first of some statements a comment."""
        for statement in statements:
            statement.comment, comment = comment, ""
            yield statement

    # What a line stands for

    def _expanded(
        self, text: str, where: Where, source: _Source, nesting: int
    ) -> Iterator[_Statement]:
        if nesting > _MAX_NESTING:
            raise Unreadable(f"{where}: parameters, lists or sequences are nested too deeply")
        later: list[Sequence[str]] = []
        text = self._settled(text, where, source, later)
        if text.startswith("~"):
            for line in self._repeated(text, where):
                yield from self._expanded(line, where, source, nesting + 1)
        elif text:
            yield from self._cut(text, where, source, nesting)
        while later:
            for line in later.pop():
                yield from self._expanded(line, where, source, nesting + 1)

    def _settled(self, text: str, where: Where, source: _Source, later: list[Sequence[str]]) -> str:
        """A line with its conditions decided and its parameters replaced; empty if nothing is left.

        later
            Gets the other lines of parameters that have many, the innermost last.
        """
        for _ in range(_MAX_REPLACEMENTS):
            text = self._meant(text)
            definition = _DEFINITION.fullmatch(text)
            if definition is not None:
                self.parameters[definition[1]] = _Parameter([definition[2]])
                return ""
            replaced = None if text.startswith("~") else self._replaced(text, source, later)
            if replaced is None:
                return text
            text = replaced
            if len(text) > MAX_LINE:
                break
        raise Unreadable(f"{where}: parameters make the line longer than keepalived can read")

    def _meant(self, text: str) -> str:
        """A line without its condition; empty if it is for another machine."""
        if not text.startswith("@"):
            return text
        negated = text.startswith("@^")
        name, _, rest = text[2 if negated else 1 :].replace("\t", " ").partition(" ")
        return rest.strip() if (name == self.config_id) != negated else ""

    def _replaced(self, text: str, source: _Source, later: list[Sequence[str]]) -> str | None:
        """A line with its first parameter replaced; None if it has none that is known."""
        for found in _PARAMETER.finditer(text):
            name = found["braced"] or found["bare"]
            parameter = self._parameter(name, source)
            if parameter is None or (parameter.multiline and found.end() != len(text)):
                continue
            first, *more = parameter.lines or [""]
            if more:
                later.append(more)
            return text[: found.start()] + first + text[found.end() :]
        return None

    def _parameter(self, name: str, source: _Source) -> _Parameter | None:
        if name == "_PWD" and name not in self.parameters:
            return _Parameter([source.folder])
        return self.parameters.get(name)

    # Statements

    def _cut(self, text: str, where: Where, source: _Source, nesting: int) -> Iterator[_Statement]:
        """A line's first statement or brace, and what the rest of the line stands for."""
        self.statements += 1
        if self.statements > MAX_STATEMENTS:
            raise Unreadable(f"{where}: more than {MAX_STATEMENTS} statements")
        split = words(text)
        if len(split) == 2 and split[0] in _INCLUDES:
            yield from self.include(split[1], where, source)
            return
        found = _STATEMENT.match(text)
        end = found.end() if found else 1
        yield _Statement(text[:end].strip(" \t"), where, why=_doubt(text[:end]))
        rest = text[end:].strip(" \t")
        if rest:
            # Each brace is a step of its own, so a line full of them must not count as nesting.
            while rest and rest[0] in "{}":
                yield _Statement(rest[0], where)
                rest = rest[1:].strip(" \t")
            if rest:
                yield from self._expanded(rest, where, source, nesting + 1)

    def _repeated(self, text: str, where: Where) -> Iterator[str]:
        """The rest of a ``~SEQ`` or ``~LST`` line, once for each of its values."""
        sequence, listed = _SEQUENCE.fullmatch(text), _LIST.fullmatch(text)
        if sequence is not None:
            yield from self._sequence(sequence, where)
        elif listed is not None:
            yield from self._list(listed, where)
        else:
            self.remarks.append(Remark(where, text, "this is no ~SEQ or ~LST as keepalived has it"))

    def _sequence(self, found: re.Match[str], where: Where) -> Iterator[str]:
        hexadecimal, name, given, rest = found.groups()
        # The numbers may be parameters themselves.
        numbers = self._numbers(given)
        if numbers is None or (hexadecimal and min(numbers) < 0):
            self.remarks.append(Remark(where, found[0], "the numbers of ~SEQ make no sequence"))
            return
        for number in numbers:
            self.parameters[name] = _Parameter([f"{number:x}" if hexadecimal else str(number)])
            yield rest

    def _numbers(self, given: str) -> range | None:
        source = _Source("", "", ())
        for _ in range(_MAX_REPLACEMENTS):
            replaced = self._replaced(given, source, [])
            if replaced is None:
                break
            given = replaced[:MAX_LINE]
        try:
            numbers = [_number(word) for word in given.split(",")]
        except ValueError:
            return None
        return _range(numbers)

    def _list(self, found: re.Match[str], where: Where) -> Iterator[str]:
        names = _separated(found["name"] or found["names"])
        if found["name"]:
            values = [[value] for value in _separated(found["values"])]
        else:
            values = [_separated(group) for group in _GROUPS.findall(found["values"])]
        if not values or any(len(value) != len(names) for value in values):
            self.remarks.append(
                Remark(where, found[0], "the values of ~LST do not match its names")
            )
            return
        for value in values:
            self.parameters.update(
                (name, _Parameter([item])) for name, item in zip(names, value, strict=True)
            )
            yield found["rest"]

    # The tree

    def tree(self, statements: Iterable[_Statement]) -> Tree:
        """Put statements into their blocks."""
        top: list[_Draft] = []
        blocks = [top]
        opened: list[Where] = []
        where = None
        for statement in statements:
            where = statement.where
            if statement.text == "{":
                blocks.append(_block(blocks[-1], where))
                opened.append(where)
            elif statement.text == "}":
                if not opened:
                    raise Unreadable(f"{where}: there is no block that this }} could end")
                blocks.pop()
                opened.pop()
            else:
                blocks[-1].append(_Draft(statement))
            if len(blocks) > MAX_DEPTH:
                raise Unreadable(f"{where}: more than {MAX_DEPTH} blocks within each other")
        if opened:
            raise Unreadable(f"{opened[-1]}: the block that begins here does not end")
        return Tree(_frozen(top), tuple(self.remarks), tuple(self.files))


@dataclass(slots=True)
class _Draft:
    """A node that may still get a block."""

    statement: _Statement
    children: list[_Draft] | None = None


def _block(siblings: list[_Draft], where: Where) -> list[_Draft]:
    """Begin the block of the last statement."""
    if not siblings or siblings[-1].children is not None:
        raise Unreadable(f"{where}: there is no keyword before this {{")
    children: list[_Draft] = []
    siblings[-1].children = children
    return children


def _frozen(drafts: list[_Draft]) -> tuple[Node, ...]:
    return tuple(
        Node(
            draft.statement.text,
            draft.statement.where,
            None if draft.children is None else _frozen(draft.children),
            draft.statement.comment,
            draft.statement.why,
        )
        for draft in drafts
    )


def _doubt(text: str) -> str:
    """Why a statement may mean something else than what it shows."""
    for found in _PARAMETER.finditer(text):
        name = found["braced"] or found["bare"]
        if name in _UNSAFE:
            return f"${{{name}}} has no fixed meaning in keepalived 2.2"
        if found["braced"] and text[: found.start()].count('"') % 2 == 0:
            return f"the parameter ${{{name}}} is not defined"
    return ""


def _continued(definition: _Parameter, line: _Line) -> _Parameter | None:
    """Add a line to a definition; return the definition if it still goes on."""
    if not line.continued:
        # With nothing in the lines before, the last one is all, and may stand within a line.
        definition.multiline = bool(definition.lines)
    if line.text:
        definition.lines.append(line.text)
    return definition if line.continued else None


def _separated(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _number(word: str) -> int:
    """A number as strtol reads it: decimal, 0x hexadecimal, 0 octal."""
    word = word.strip()
    sign, digits = (-1, word[1:]) if word.startswith("-") else (1, word)
    octal = re.fullmatch("0[0-7]+", digits) is not None
    return sign * int(digits, 8 if octal else 0)


def _range(numbers: Sequence[int]) -> range | None:
    """The numbers of a sequence from its end; start and end; or start, step and end."""
    if len(numbers) == 1:
        start, end = (-1 if numbers[0] < 0 else 1), numbers[0]
        step = -1 if end < 1 else 1
    elif len(numbers) == 2:
        start, end = numbers
        step = 1 if start <= end else -1
    elif len(numbers) == 3:
        start, step, end = numbers
    else:
        return None
    if not step or (end - start) * step < 0:
        return None
    found = range(start, end + (1 if step > 0 else -1), step)
    return found if len(found) <= MAX_STATEMENTS else None


# --------------------------------------------------------------------------------------------------
# Files


def _matches(pattern: str, folder: str) -> list[str]:
    """The files that a pattern of an include stands for, in keepalived's order."""
    return [
        path
        for alternative in _alternatives(pattern)
        for path in sorted(glob.glob(os.path.join(glob.escape(folder), alternative)))
    ]


def _alternatives(pattern: str) -> list[str]:
    """What a pattern with braces stands for: ``{a,b}.conf`` for ``a.conf`` and ``b.conf``."""
    done: list[str] = []
    todo = [pattern]
    while todo and len(done) + len(todo) <= _MAX_ALTERNATIVES:
        first = todo.pop(0)
        found = re.search(r"\{([^{}]*)\}", first)
        if found is None:
            done.append(first)
            continue
        head, tail = first[: found.start()], first[found.end() :]
        todo[:0] = [f"{head}{choice}{tail}" for choice in found[1].split(",")]
    return done


def _unfit(path: str) -> str:
    """Why keepalived leaves a file out; empty if it reads it."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not stat.S_ISREG(mode) or mode & 0o111:
        return "is left out by keepalived: it is executable, or no regular file"
    return ""


def _content(path: str) -> str:
    try:
        # A FIFO would hold us up for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Unreadable(f"{path} is no regular file")
            found = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise Unreadable(f"cannot read {path}: {error.strerror}") from error
    if len(found) > MAX_FILE_BYTES:
        raise Unreadable(f"{path} has more than {MAX_FILE_BYTES} bytes")
    # Comments may be in any encoding; what is no UTF-8 elsewhere stays visible as unprintable.
    return found.decode("utf-8", "surrogateescape")
