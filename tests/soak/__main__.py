"""Inside the lab, ``python -m tests.soak``: failovers by the dozen; ends with a table, and with
exit status 0 only if every transition was told, once and in order, and the password nowhere.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import closing

from tests.lab import Lab
from tests.soak.failovers import Failovers, Round, cluster_of

FAILOVERS = 50


def main(arguments: Sequence[str] | None = None) -> int:
    """Do failovers and say what came of them; returns 1 if something was not told as it was."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--failovers", type=int, default=FAILOVERS, metavar="N")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 100_000)
    chosen = parser.parse_args(arguments)
    print(f"{chosen.failovers} failovers, --seed {chosen.seed}", flush=True)
    began = time.monotonic()
    with Lab() as lab, closing(cluster_of(lab)) as cluster:
        print(f"a master and two directors in {time.monotonic() - began:.0f} s", flush=True)
        failovers = Failovers(cluster, chosen.seed)
        failovers.prepare()
        print(f"their highstate in {time.monotonic() - began:.0f} s", flush=True)
        done = []
        with failovers.listening():
            for number, found in enumerate(failovers.rounds(chosen.failovers), start=1):
                done.append(found)
                print(f"{number:3}  {found.gap:5.2f} s  {found.cause}", flush=True)
                for problem in found.problems:
                    print(f"       NOT AS IT SHOULD BE: {problem}", flush=True)
        secrets = failovers.secrets()
    print(table(done))
    wrong = sum(bool(found.problems) for found in done)
    print(f"\n{len(done)} failovers in {time.monotonic() - began:.0f} s, {wrong} told wrongly")
    print("\n".join(secrets) if secrets else "The password is in no log, event or return.")
    return 1 if wrong or secrets else 0


def table(done: Sequence[Round]) -> str:
    """What came of each cause: how often, the longest time without an answer, what was wrong."""
    causes = list(dict.fromkeys(found.cause for found in done))
    width = max(map(len, causes), default=0)
    rows = []
    for cause in causes:
        own = [found for found in done if found.cause == cause]
        wrong = sum(bool(found.problems) for found in own)
        gap = max(found.gap for found in own)
        rows.append(f"{cause:{width}}  {len(own):5}  {gap:13.2f} s  {wrong:5}")
    head = f"{'cause':{width}}  times  longest gap      wrong"
    return "\n".join(["", head, *rows])


if __name__ == "__main__":
    sys.exit(main())
