"""Apply a director's keepalived configuration in a host, as the state does: ``python THIS PILLAR``.

The table of what Salt keeps comes first, as in the formula. Prints what was done as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "_utils")]

from saltext.lvs import applying, ipvs, keepalived, model  # noqa: E402

TEMPLATE = (CHECKOUT / "lvs/files/keepalived.conf.jinja").read_text(encoding="utf-8")
CONFIG = "/etc/keepalived/keepalived.conf"
DIRECTOR = "lb1"


def main(pillar: str) -> None:
    """Apply it once."""
    cluster = model.from_pillar(json.loads(pillar))
    table = ipvs.apply(cluster.table(), leave=cluster.keepalived_keys())
    text = keepalived.render(cluster, DIRECTOR, TEMPLATE)
    outcome = applying.apply(applying.Job(CONFIG, text, cluster))
    told = {**dataclasses.asdict(outcome), "table": [str(op) for op in table.ops]}
    print(json.dumps(told, default=str))


if __name__ == "__main__":
    main(sys.argv[1])
