#!py
"""A real server told that it has lost a VIP, or that it may have been heard on ARP.

Ask it, and only it, to look and put that right; and where it was heard and is quiet again, have the
runner find the directors that shall announce the VIPs anew. The event is a hint, and may be forged:
nothing of it is handed on but the name of who tells it. What lacks, and whether the minion is a
real server at all, is found out there.
"""


def run():
    minion_id = _teller()
    reactions = {}
    if minion_id is None:
        return reactions
    # One that puts it right itself, or has done so, is left to it.
    at_it = data.get("acted") is True or data.get("healing") is True
    if not at_it and any(map(_is_harm, _changes())):
        # A list matches by the exact id: in a string, a comma or a star would mean others.
        asked = [{"tgt": [minion_id]}, {"tgt_type": "list"}, {"args": [{"automatic": True}]}]
        reactions["dummy-repair"] = {"local.dummy.repair": asked}
    if any(map(_is_quiet_again, _changes())):
        asked = [{"args": [{"minion_id": minion_id}]}]
        reactions["lvs-announce"] = {"runner.lvs.announce": asked}
    return reactions


def _teller():
    """Whose event it is, if it is one of the beacon's: in its content as in its tag."""
    minion_id = data.get("id") if isinstance(data, dict) else None
    if isinstance(minion_id, str) and tag == f"salt/beacon/{minion_id}/dummy/change":
        return minion_id
    return None


def _changes():
    changes = data.get("changes")
    if not isinstance(changes, list):
        return []
    return [change for change in changes if isinstance(change, dict)]


def _is_harm(change):
    # What comes again and again is left alone: a person must look.
    noisy = "sysctl" in change and change.get("quiet") is False
    harm = change.get("now") == "lost" or noisy
    return harm and change.get("gave_up") is not True


def _is_quiet_again(change):
    # It was not before, so neighbours may have learnt its MAC address for a VIP.
    return "sysctl" in change and change.get("quiet") is True
