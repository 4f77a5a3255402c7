"""A minion's life in one process, told to ``test_freshness.py``: sync, load, call, fork, sync anew.

A process of its own, because the library that it loads and replaces is also that of other tests.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import salt.config
import salt.loader

LIBRARY = Path(__file__).parents[2] / "_utils" / "saltext" / "lvs"

DOOR = """\
import saltext.lvs

saltext.lvs.refresh(__file__)

from saltext.lvs import engine  # noqa: E402


def versions():
    return {{"door": {version!r}, "library": engine.VERSION}}


def identity():
    return id(engine)
"""


def write_tree(root: Path, version: str, *, engine: str = "") -> None:
    """Write a small tree of ours: the real start of the library, one module in it, one door."""
    library = root / "_utils" / "saltext" / "lvs"
    library.mkdir(parents=True, exist_ok=True)
    shutil.copy(LIBRARY / "__init__.py", library)
    (library / "engine.py").write_text(f"VERSION = {version!r}\n{engine}", encoding="utf-8")
    doors = root / "_modules"
    doors.mkdir(exist_ok=True)
    (doors / "door.py").write_text(DOOR.format(version=version), encoding="utf-8")


class Minion:
    """What matters here: a minion loads modules when it starts and after a sync, and forks jobs."""

    def __init__(self, root: Path) -> None:
        self.tree = root / "tree"
        opts = salt.config.minion_config(None)
        opts.update(
            id="minion",
            file_client="local",
            root_dir=str(root),
            cachedir=str(root / "cache"),
            extension_modules=str(root / "extmods"),
            conf_file=str(root / "minion"),
            file_roots={"base": [str(self.tree)]},
            grains={"kernel": "Linux", "os_family": "Debian", "os": "Debian"},
        )
        self.opts = opts
        self.load()

    def load(self) -> None:
        """Make new loaders, as a minion does when its modules are refreshed."""
        self.utils = salt.loader.utils(self.opts)
        self.functions = salt.loader.minion_mods(self.opts, utils=self.utils)

    def sync(self) -> None:
        self.functions["saltutil.sync_all"](refresh=False)
        self.load()

    def call(self, function: str = "door.versions") -> Any:
        """Call a function in this process, or tell why it is not there."""
        if function in self.functions:
            return self.functions[function]()
        return self.functions.missing_fun_string(function)

    def job(self, function: str = "door.versions") -> Any:
        """Call a function in a forked process, as a minion runs its jobs."""
        context = multiprocessing.get_context("fork")
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=lambda: writer.send(self.call(function)))
        process.start()
        answer = reader.recv() if reader.poll(60) else "no answer"
        process.join()
        return answer


def replaced(root: Path) -> dict[str, Any]:
    """A newer tree is synced: first a job calls, then the minion itself, then a job."""
    minion = Minion(root)
    write_tree(minion.tree, "old")
    minion.sync()
    before = {"minion": minion.call(), "job": minion.job()}
    write_tree(minion.tree, "newer")
    minion.sync()
    after = {"first job": minion.job(), "minion": minion.call(), "second job": minion.job()}
    return {"before": before, "after": after}


def installed_too(root: Path) -> dict[str, Any]:
    """The minion has an installed library in memory when a tree is synced to it."""
    site = root / "site-packages"
    write_tree(site, "installed")
    (site / "_utils" / "saltext").rename(site / "saltext")
    sys.path.insert(0, str(site))
    from saltext.lvs import engine

    minion = Minion(root)
    write_tree(minion.tree, "synced")
    minion.sync()
    return {"in memory": engine.VERSION, "minion": minion.call(), "job": minion.job()}


def running(root: Path, release: str) -> dict[str, Any]:
    """The old library runs something when a newer one is synced."""
    minion = Minion(root)
    write_tree(minion.tree, "old", engine=f"def release():\n    {release}\n")
    minion.sync()
    minion.call()
    write_tree(minion.tree, "newer")
    minion.sync()
    return {"minion": minion.call(), "released": os.environ.get("RELEASED", "")}


def released(root: Path) -> dict[str, Any]:
    return running(root, "import os; os.environ['RELEASED'] = VERSION")


def unwilling(root: Path) -> dict[str, Any]:
    return running(root, "raise RuntimeError('a thread hangs')")


def unchanged(root: Path) -> dict[str, Any]:
    """Nothing was replaced: the library stays as it is, and asking costs next to nothing."""
    minion = Minion(root)
    write_tree(minion.tree, "old")
    minion.sync()
    first = minion.call("door.identity")
    minion.sync()
    same = minion.call("door.identity") == first
    from saltext.lvs import refresh

    door = minion.opts["extension_modules"] + "/modules/door.py"
    times = []
    for _ in range(100):
        start = time.perf_counter()
        refresh(door)
        times.append(time.perf_counter() - start)
    return {"same": same, "median_seconds": sorted(times)[50]}


if __name__ == "__main__":
    story = globals()[sys.argv[1]]
    print(json.dumps(story(Path(sys.argv[2]))))
