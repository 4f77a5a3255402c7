#!py
"""A director told a change of its VRRP state, or another state than the master's last look saw.

Have the runner ask all directors of its cluster who holds each VIP, and tell where several do, or
nobody. The event is a hint, and may be forged: nothing of it is handed on but the name of who tells
it and when it came, and who is asked is found out there.

What a director tells every 30 seconds is no news as a rule, so that is found out here, from what
the runner wrote down. It is news where a change was missed: the master did not run, or was not
reached.
"""

import json
import os
import time

# Then a look is due anyway; as holders.LOOK_EVERY_SECONDS.
LOOK_EVERY_SECONDS = 600


def run():
    minion_id = data.get("id") if isinstance(data, dict) else None
    if not isinstance(minion_id, str):
        return {}
    is_news = {
        f"salt/beacon/{minion_id}/keepalived_vrrp/change": _tells_of_vrrp,
        f"salt/beacon/{minion_id}/keepalived_vrrp/state": _is_other_than_seen,
    }.get(tag)
    if is_news is None or not is_news(minion_id):
        return {}
    # To Salt, one that has two keys is none.
    asked = [{"minion_id": minion_id}, {"stamp": str(data.get("_stamp"))}]
    return {"lvs-check-mastership": {"runner.lvs.check_mastership": [{"args": asked}]}}


def _tells_of_vrrp(_):
    # The same beacon tells of virtual servers and real servers too.
    return any("vrrp_instance" in change or "problem" in change for change in _items("changes"))


def _is_other_than_seen(minion_id):
    seen = _seen().get(minion_id)
    if seen is None or not 0 <= time.time() - seen["at"] < LOOK_EVERY_SECONDS:
        return True
    held = {
        address
        for instance in _items("vrrp_instances")
        for address in _list(instance.get("vips_held"))
        if address in seen["vips"]
    }
    return seen["held"] is None or held != set(seen["held"])


def _seen():
    try:
        path = os.path.join(__opts__["cachedir"], "saltext-lvs", "seen.json")
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def _items(key):
    return [item for item in _list(data.get(key)) if isinstance(item, dict)]


def _list(value):
    return value if isinstance(value, list) else []
