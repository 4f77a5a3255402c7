#!py
"""A real server told that it has lost a VIP: ask it, and only it, to look and put it back.

The event is a hint, and may be forged: nothing of it is handed on but the name of who tells it.
What lacks, and whether the minion is a real server at all, it finds out itself.
"""


def run():
    minion_id = _teller()
    if minion_id is None or data.get("acted") is True or not any(map(_is_loss, _changes())):
        return {}
    return {
        "dummy-repair": {
            # A list matches by the exact id: in a string, a comma or a star would mean others.
            "local.dummy.repair": [{"tgt": [minion_id]}, {"tgt_type": "list"}],
        }
    }


def _teller():
    """Whose event it is, if it is one of the beacon's: in its content as in its tag."""
    minion_id = data.get("id") if isinstance(data, dict) else None
    if isinstance(minion_id, str) and tag == f"salt/beacon/{minion_id}/dummy/change":
        return minion_id
    return None


def _changes():
    changes = data.get("changes")
    return changes if isinstance(changes, list) else []


def _is_loss(change):
    # What is taken away again and again is left alone: a person must look.
    lost = isinstance(change, dict) and change.get("now") == "lost"
    return lost and change.get("gave_up") is not True
