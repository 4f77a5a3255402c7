"""Linux Virtual Server clusters: the library behind the Salt modules, and how they find it.

The library imports no Salt. Execution modules, runners and engines are its only users; they begin
with ::

    import saltext.lvs

    saltext.lvs.refresh(__file__)
    from saltext.lvs import model

because a minion is long-lived and forks its jobs: a library that a sync has replaced on disk stays
in memory, and new modules would run on old code until the minion is restarted.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys

__version__ = "0.1.0.dev0"

_PLACE = os.path.join("saltext", "lvs")
_KINDS = ("modules", "states", "beacons", "runners", "engines")


def loader_dirs() -> dict[str, list[str]]:
    """Return the folders of Salt modules by kind, for the ``salt.loader`` entry point.

    Empty while the library in memory is a synced one: a synced tree is complete, and what is
    installed beside it may be of another version.
    """
    specs = {kind: importlib.util.find_spec(f"{__name__}.{kind}") for kind in _KINDS}
    return {
        kind: list(spec.submodule_search_locations)
        for kind, spec in specs.items()
        if spec and spec.submodule_search_locations
    }


def refresh(door: str) -> None:
    """Make the next import from ``saltext.lvs`` give the library that stands beside ``door`` now.

    Costs about 0.1 ms when nothing has changed. Code that was imported before goes on running as it
    was, so library modules import one another at their top, never inside functions. One that keeps
    something running (threads, open sockets) defines ``release()``, which ends what this process
    (not the one it was forked from) runs, or raises RuntimeError with the reason why it cannot.

    Newer modules call the ``refresh`` of the library that they replace: its signature stays.

    door
        ``__file__`` of the execution module, runner or engine that is being loaded.

    Raises ImportError if something of the old library cannot be ended; Salt then offers no function
    of that module, and says why.
    """
    home = _home(door)
    if _fingerprint(home) != _loaded:
        _release()
        _load(home)


def _home(door: str) -> str:
    """Return the folder of the library in the tree that a module belongs to.

    A plain import would not do where the tree is both installed and synced: Salt prefers the synced
    modules, but appends the synced library to ``sys.path``, behind the installed one.
    """
    tree = os.path.dirname(os.path.dirname(os.path.abspath(door)))
    candidates = (
        os.path.join(tree, "utils", "saltext", "lvs"),  # synced to <extension_modules>
        os.path.join(tree, "_utils", "saltext", "lvs"),  # in place, or an editable install
        tree,  # installed: the modules are in a folder of the library
        os.path.dirname(__file__),  # modules synced without the library
    )
    for folder in candidates:
        if folder.endswith(_PLACE) and os.path.isfile(os.path.join(folder, "__init__.py")):
            return folder
    raise ImportError(f"no library for {door}: run saltutil.sync_all")


def _fingerprint(folder: str) -> frozenset[tuple[str, int, int, int]]:
    """Return what tells one set of source files from another, without reading them."""
    with os.scandir(folder) as entries:
        stats = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith(".py")]
    return frozenset((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def _release() -> None:
    """Let every module of the library in memory end what it runs, then forget them all."""
    names = [name for name in sys.modules if name.startswith(f"{__name__}.")]
    for name in names:
        release = getattr(sys.modules[name], "release", None)
        if release is None:
            continue
        try:
            release()
        except RuntimeError as error:
            raise ImportError(
                f"{name} changed on disk and the old one cannot end: {error}; restart the minion"
            ) from error
    for name in names:
        sys.modules.pop(name, None)


def _load(folder: str) -> None:
    """Import the library from one folder, whatever ``sys.path`` holds."""
    importlib.invalidate_caches()
    spec = importlib.util.spec_from_file_location(
        __name__, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"no library in {folder}")
    library = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(library)
    sys.modules[__name__] = library
    parent, _, name = __name__.rpartition(".")
    setattr(sys.modules[parent], name, library)


# Taken before anything else of the library is imported: what changes later is seen as a change.
_loaded = _fingerprint(os.path.dirname(__file__))
