"""What the documentation says of the pillar is what the model does, key by key."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from saltext.lvs import grammar, instances, model, reading, sections

from tests.unit import keyword_tables

TREE = Path(__file__).parents[2]
PAGES = sorted([TREE / "README.md", *TREE.glob("docs/*.md"), *TREE.glob("pillar.example/*.md")])
REFERENCE = (TREE / "docs" / "pillar.md").read_text(encoding="utf-8")

# Mappings whose keys are names that the operator chooses.
NAMED = ("directors", "real_servers", "hypervisors", "vrrp_instances", "virtual_servers")

# What must be there before a section can be written out.
SMALL = """
lvs:
  directors: {lb1: {}, lb2: {}}
  real_servers: {rs1: {address: 10.10.10.41}}
  hypervisors: {kvm1: {}}
  vrrp_instances:
    VirtIP_10:
      interface: eth0
      virtual_router_id: 10
      virtual_ipaddress: [{address: 10.10.10.10}]
  sync_daemon: {interface: eth0, vrrp_instance: VirtIP_10}
  virtual_servers:
    web:
      address: 10.10.10.10
      port: 80
      check: {types: [path, tcp, https], http: {host: www.example.com}, tls: {}, hold: {}}
      sorry_server: {address: 10.10.10.99}
      real_servers: {rs1: {}}
  ipvs: {timeouts: {}}
  alerts: {}
  keepalived: {}
lvs_secrets:
  vrrp_instances: {VirtIP_10: {auth_pass: MY_PASS}}
"""


@dataclass(frozen=True)
class Row:
    """One line of a table of the reference; *section* is its heading, such as ``lvs:alerts``."""

    section: str
    key: str
    default: str
    meaning: str

    @property
    def path(self) -> str:
        return f"{self.section}:{self.key}"


def rows() -> Iterator[Row]:
    """The tables of keys; that of ``lookup`` has other columns, and is of no key of the model."""
    section = ""
    for line in REFERENCE.splitlines():
        if line.startswith("## "):
            heading = re.fullmatch(r"## `(lvs\S*)`", line)
            section = heading[1] if heading else ""
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        key = re.fullmatch(r"`(\w+)`", cells[0])
        if section and key and len(cells) == 4:
            yield Row(section, key[1], cells[2], cells[3])


def in_general(path: str) -> str:
    """A pillar path with the operator's names taken out: ``lvs:directors:<name>:state``."""
    parts = path.split(":")
    return ":".join(
        "<name>" if index and parts[index - 1] in NAMED else "<number>" if part.isdigit() else part
        for index, part in enumerate(parts)
    )


# Where keepalived's own keywords may stand, which keywords.md lists; and what is refused there.
KEYWORDS: dict[str, set[str]] = {
    "lvs:vrrp_instances:<name>": {*grammar.VRRP_INSTANCE},
    "lvs:vrrp_instances:<name>:virtual_ipaddress:<number>": {*grammar.VIRTUAL_ADDRESS},
    "lvs:directors:<name>:vrrp_instances:<name>": {
        *grammar.VRRP_INSTANCE,
        *instances.SHARED,
        "auth_pass",
        "authentication",
    },
    "lvs:directors:<name>:keepalived": {*grammar.SECTIONS, *sections.NOT_HERE},
    "lvs:keepalived": {*grammar.SECTIONS, *sections.NOT_HERE},
    "lvs:virtual_servers:<name>": {*grammar.VIRTUAL_SERVER},
    "lvs:virtual_servers:<name>:real_servers:<name>": {*grammar.REAL_SERVER},
}


def is_keepalived_own(path: str) -> bool:
    """Whether a pillar path in general is one of keepalived's own keywords, or below one."""
    parts = path.split(":")
    return ":checkers:" in path or any(
        parts[end] in KEYWORDS.get(":".join(parts[:end]), ()) for end in range(1, len(parts))
    )


@dataclass(frozen=True)
class Block:
    """A piece of YAML in a page."""

    page: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(TREE)}:{self.line}"


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in re.finditer(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            yield Block(page, text[: found.start()].count("\n") + 1, found[1])


def everything() -> dict[str, Any]:
    """The reference's own example with every key, and its passwords."""
    longest = max((block.text for block in blocks() if block.page.name == "pillar.md"), key=len)
    return {**yaml.safe_load(SMALL), **yaml.safe_load(longest)}


def put(pillar: dict[str, Any], path: str, value: Any) -> None:
    """Write a value where a path in general leads; where a name stands, the first one is taken."""
    *parents, key = path.split(":")
    place = pillar
    for part in parents:
        place = _first(place) if part.startswith("<") else place[part]
    place[key] = value


def _first(place: Any) -> Any:
    return place[0] if isinstance(place, list) else next(iter(place.values()))


def test_the_reference_has_every_key_that_the_model_reads_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: set[str] = set()
    raw = reading.Section.raw

    def noted(self: reading.Section, key: str, default: Any = None) -> Any:
        asked.add(in_general(self.at(key)))
        return raw(self, key, default)

    monkeypatch.setattr(reading.Section, "raw", noted)
    model.from_pillar(everything())
    assert {row.path for row in rows()} == {path for path in asked if not is_keepalived_own(path)}


@pytest.mark.parametrize(
    "row",
    [row for row in rows() if re.fullmatch(r"`[^`]+`", row.default)],
    ids=lambda row: row.path,
)
def test_writing_a_documented_default_out_changes_nothing(row: Row) -> None:
    pillar = yaml.safe_load(SMALL)
    written = copy.deepcopy(pillar)
    put(written, row.path, yaml.safe_load(row.default.strip("`")))
    assert replace(model.from_pillar(written), unused=()) == replace(
        model.from_pillar(pillar), unused=()
    )


@pytest.mark.parametrize(
    "row", [row for row in rows() if row.default == "required"], ids=lambda row: row.path
)
def test_what_is_documented_as_required_cannot_be_left_out(row: Row) -> None:
    pillar = yaml.safe_load(SMALL)
    put(pillar, row.path, None)
    with pytest.raises(model.InvalidConfig):
        model.from_pillar(pillar)


def test_what_has_no_effect_is_said_of_each_key_that_nothing_acts_on() -> None:
    pillar = everything()
    pillar["lvs"]["alerts"]["by"] = "salt"
    unused = set(model.from_pillar(pillar).unused)
    for config in pillar["lvs"]["virtual_servers"].values():
        config.update(managed_by="keepalived", check={})
        config["real_servers"].pop("appliance", None)
    unused |= set(model.from_pillar(pillar).unused)
    assert {row.path for row in rows() if "**no effect**" in row.meaning.lower()} == {
        path for path in map(in_general, unused) if not is_keepalived_own(path)
    }


def test_the_page_of_keywords_has_each_with_what_it_takes_and_what_it_is_for() -> None:
    page = (TREE / "docs" / "keywords.md").read_text(encoding="utf-8")
    found: dict[str, dict[str, str]] = {}
    heading = ""
    for line in page.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ").strip("`")
        row = re.fullmatch(r"\| `(\w+)` \| (.+?) \| (\S.*) \|", line)
        if row:
            found.setdefault(heading, {})[row[1]] = row[2]
    assert found == {
        name: {keyword: keyword_tables.shown(kind) for keyword, kind in table.items()}
        for name, table in keyword_tables.SECTIONS.items()
    }


def test_the_reference_lists_the_names_that_the_formula_looks_up() -> None:
    text = (TREE / "lvs" / "map.jinja").read_text(encoding="utf-8")

    def of_debian(families: dict[str, Any], **_: Any) -> Any:
        return families["Debian"]

    salt = {
        "lvs.view": dict,
        "grains.filter_by": of_debian,
        "config.get": lambda _name, default: default,
        "file.dirname": lambda path: str(Path(path).parent),
    }
    # An SLS is no HTML.
    environment = jinja2.Environment()  # noqa: S701
    module: Any = environment.from_string(text).make_module({"salt": salt})
    section = REFERENCE.partition("## `lvs:lookup`")[2].partition("\n## ")[0]
    listed = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", section, re.MULTILINE))
    assert {key: yaml.safe_load(value) for key, value in listed.items()} == module.names


@pytest.mark.parametrize("block", list(blocks()), ids=str)
def test_a_pillar_that_a_page_shows_is_right(block: Block) -> None:
    shown = yaml.safe_load(block.text)
    if "lvs" in shown:
        model.from_pillar(shown)
    elif "lvs_secrets" in shown:
        model.from_pillar({**everything(), **shown})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TREE)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        if not other.exists() or (anchor and anchor not in anchors(other)):
            broken.append(target)
    assert broken == []


def anchors(page: Path) -> set[str]:
    """What a heading is called in a link: lower case, words joined by dashes, no other signs."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
