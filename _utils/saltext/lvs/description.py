"""The cluster's description as last applied here: what the watchers go by until a pillar is there.

A minion that starts while its master is away has none, and its director's real servers die all the
same. Only what checks and weights need is kept, and no password.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from saltext.lvs import files
from saltext.lvs.errors import DamagedState
from saltext.lvs.persistence import File
from saltext.lvs.reading import plain

PATH = "/var/lib/saltext-lvs/cluster.json"
KEPT = ("name", "real_servers", "virtual_servers", "reaction", "vip_interface")


def file_of(pillar: Mapping[str, Any], minion_id: str, path: str | None = None) -> File:
    """The file that keeps a right pillar's description for one director.

    Of VRRP, by which several agree on who holds the VIPs, it needs nothing: so it is the only one
    there.
    """
    lvs = plain(pillar["lvs"])
    kept = {name: lvs[name] for name in KEPT if name in lvs}
    own = lvs["directors"][minion_id] if isinstance(lvs["directors"], dict) else None
    address = (own or {}).get("address")
    kept["directors"] = {minion_id: {"address": address} if address else {}}
    text = json.dumps({"lvs": kept}, indent=1, default=str)
    # What a check sends may be a password.
    return File(path or PATH, text + "\n", files.PRIVATE, told=False)


def read(path: str | None = None) -> dict[str, Any] | None:
    """As a pillar; ``None`` where nothing was applied.

    Raises :class:`~saltext.lvs.errors.DamagedState` for what is no description, and
    :class:`~saltext.lvs.errors.CommandFailed` for a file that cannot be read.
    """
    found = files.read(path or PATH)
    if found is None:
        return None
    try:
        pillar = json.loads(found[0])
        if isinstance(pillar["lvs"], dict):
            return {"lvs": pillar["lvs"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedState(path or PATH, "the cluster as last applied", str(error)) from error
    raise DamagedState(path or PATH, "the cluster as last applied", "no mapping")
