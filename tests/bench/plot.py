"""The pictures: how the cost of a real server grows with the table, and how soon a loss of VIPs is
known and put right.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.lab import cache

if TYPE_CHECKING:
    from tests.bench.suite import Point


def draw(points: Sequence[Point], picture: Path) -> None:
    """Draw the curve of costs into a PNG file."""
    with _picture(picture) as axes:
        from matplotlib import ticker

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
        axes.legend()


def draw_losses(losses: Mapping[str, Sequence[float]], picture: Path) -> None:
    """Draw, by what happens after a loss, the share of losses after which it has happened by then,
    in milliseconds, into a PNG file.
    """
    with _picture(picture) as axes:
        for name, times in losses.items():
            ordered = sorted(times)
            shares = [100 * (number + 1) / len(ordered) for number in range(len(ordered))]
            axes.step([ordered[0], *ordered], [0, *shares], where="post", label=name)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda number, _: f"{number:,g}")
        axes.set_ylim(0, 102)
        axes.set_xlabel("ms since dummy0 was deleted")
        axes.set_ylabel("% of the losses")
        axes.set_title("A real server loses its VIPs")
        axes.legend(loc="lower right")


@contextmanager
def _picture(path: Path) -> Iterator[Any]:
    """The axes of a picture, which is written at the end of the block."""
    # Where it keeps what it knows of fonts, which it would otherwise leave in the user's folder.
    os.environ.setdefault("MPLCONFIGDIR", str(cache.folder() / "matplotlib"))
    # It takes half a second to import, and nothing but this needs it.
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), dpi=110, layout="constrained")
    axes.grid(alpha=0.3)
    yield axes
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)
