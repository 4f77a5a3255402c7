#!py
"""A director told what its checks found, and has not set the weights that follow by itself.

Ask it, and only it, to ask these real servers again and set them. The event is a hint, and may be
forged: nothing of it is handed on but the names of virtual servers, which the function looks up in
its own pillar. Other directors ask for themselves.
"""

# Who tells more of them at once is asked to look at all that it has.
MOST = 10


def run():
    minion_id = _teller()
    names = sorted(set(map(_left, _changes()))) if minion_id is not None else []
    names = [name for name in names if name]
    if len(names) > MOST:
        return {"lvs-reweight": _asked(minion_id)}
    return {
        f"lvs-reweight-{number}": _asked(minion_id, {"virtual_server": name})
        for number, name in enumerate(names)
    }


def _asked(minion_id, *more):
    # A list matches by the exact id: in a string, a comma or a star would mean others.
    args = {"args": [*more, {"automatic": True}]}
    return {"local.lvs.reweight": [{"tgt": [minion_id]}, {"tgt_type": "list"}, args]}


def _teller():
    """Whose event it is, if it is one of the beacon's, in its content as in its tag, and leaves
    something to others.
    """
    minion_id = data.get("id") if isinstance(data, dict) else None
    if not isinstance(minion_id, str) or data.get("acted") is True:
        return None
    return minion_id if tag == f"salt/beacon/{minion_id}/real_server/change" else None


def _changes():
    changes = data.get("changes")
    return changes if isinstance(changes, list) else []


def _left(change):
    """The name of the virtual server that a change leaves to others, or nothing."""
    name = change.get("virtual_server") if isinstance(change, dict) else None
    # What keepalived keeps it also sets.
    if not isinstance(name, str) or change.get("managed_by") == "keepalived":
        return ""
    return name
