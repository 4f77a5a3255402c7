"""The golden cases: a folder each, with a ``pillar.yaml`` and the keepalived.conf of each of its
directors.

A folder without ``pillar.yaml`` has the name of an environment in ``pillar.example``, whose pillar
it takes.

``python -m tests.golden.cases`` writes the files anew from the template, to be looked at in the
diff.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from saltext.lvs import keepalived, model

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
EXAMPLES = CHECKOUT / "pillar.example"
TEMPLATE = (CHECKOUT / "lvs" / "files" / "keepalived.conf.jinja").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Case:
    """One director of one cluster."""

    cluster: model.Cluster
    minion_id: str
    expected: Path

    def __str__(self) -> str:
        return f"{self.minion_id} of {self.expected.parent.name.replace('_', ' ')}"

    def rendered(self) -> str:
        """What the template makes of it now."""
        return keepalived.render(self.cluster, self.minion_id, TEMPLATE)


def folders() -> list[Path]:
    """The cases' folders."""
    others = ("__pycache__", "at_boot", "vips_kept")
    return sorted(path for path in HERE.iterdir() if path.is_dir() and path.name not in others)


def cases() -> Iterator[Case]:
    """Every director of every case."""
    for folder in folders():
        cluster = model.from_pillar(pillar(folder))
        for minion_id in cluster.directors:
            yield Case(cluster, minion_id, folder / f"{minion_id}.conf")


def pillar(folder: Path) -> dict[str, Any]:
    """A case's pillar, secrets included."""
    own = folder / "pillar.yaml"
    sources = [own] if own.exists() else sorted((EXAMPLES / folder.name).glob("*.sls"))
    found: dict[str, Any] = {}
    for source in sources:
        found.update(yaml.safe_load(source.read_text(encoding="utf-8")))
    return found


if __name__ == "__main__":
    for case in cases():
        case.expected.write_text(case.rendered(), encoding="utf-8")
