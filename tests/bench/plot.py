"""The picture of how the cost of a real server grows with the table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab import cache

if TYPE_CHECKING:
    from tests.bench.suite import Point


def draw(points: Sequence[Point], picture: Path) -> None:
    """Draw the curve into a PNG file."""
    # Where it keeps what it knows of fonts, which it would otherwise leave in the user's folder.
    os.environ.setdefault("MPLCONFIGDIR", str(cache.folder() / "matplotlib"))
    # It takes half a second to import, and nothing but this needs it.
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(figsize=(7, 4), dpi=110, layout="constrained")
    sizes = [point.real_servers for point in points]
    axes.plot(sizes, [point.ours for point in points], "o-", label="ipvs.apply, verified")
    axes.plot(
        sizes,
        [point.floor for point in points],
        "s--",
        color="grey",
        label="floor: the kernel alone, written and read once",
    )
    axes.set_xscale("log")
    axes.set_xticks(sizes)
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda number, _: f"{number:,.0f}"))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.set_ylim(bottom=0)
    axes.set_xlabel("real servers in the table, 10 to a virtual server")
    axes.set_ylabel("µs for each real server")
    axes.set_title("Create a table: the cost of one real server")
    axes.grid(alpha=0.3)
    axes.legend()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture)
    pyplot.close(figure)
