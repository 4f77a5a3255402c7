#!py
"""A minion that has just connected: ask it, and only it, to look whether it lacks a VIP.

It may have been rebooted, or the master was. The event may be forged: nothing of it is handed on
but the name of who tells it, and one that lacks nothing answers at once.
"""


def run():
    minion_id = data.get("id") if isinstance(data, dict) else None
    if not isinstance(minion_id, str) or tag != f"salt/minion/{minion_id}/start":
        return {}
    return {
        "lvs-reapply": {
            # A list matches by the exact id: in a string, a comma or a star would mean others.
            "local.lvs.reapply": [
                {"tgt": [minion_id]},
                {"tgt_type": "list"},
                {"args": [{"automatic": True}]},
            ],
        }
    }
