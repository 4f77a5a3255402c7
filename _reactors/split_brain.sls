#!py
"""The master told that a VIP is held by one director again.

Where several held it, neighbours may have learnt another one's MAC address for it, and some keep it
for hours. Have the runner find the directors of that cluster, so that the one that holds the VIP
announces it anew. While several hold it nobody is asked for anything: which of them has to let go a
person decides, whom the event `split_brain` itself tells.

The event may be forged: nothing of it is handed on but the name of a director, and the runner finds
out whose it is. To announce a VIP that one holds anyway does no harm.
"""

import re

# As the pillar may have them.
TAG = re.compile(r"lvs/vips/[A-Za-z0-9_.-]{1,200}/held")


def run():
    minion_id = _holder() if isinstance(data, dict) and TAG.fullmatch(tag) else None
    if minion_id is None:
        return {}
    asked = [{"args": [{"minion_id": minion_id}]}]
    return {"lvs-announce": {"runner.lvs.announce": asked}}


def _holder():
    holders = data.get("holders")
    if not isinstance(holders, list) or len(holders) != 1:
        return None
    return holders[0] if isinstance(holders[0], str) else None
