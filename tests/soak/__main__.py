"""Inside the lab, ``python -m tests.soak``: failovers by the dozen, and incidents while what tells
of them is killed. Ends with tables, and with exit status 0 only if every transition was told, once
and in order, every incident is in the journal and in the mails once, and the password nowhere.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import closing

from tests.integration import alerting
from tests.lab import HOSTS, Lab
from tests.soak.failovers import Failovers, Round, cluster_of
from tests.soak.incidents import Incidents

FAILOVERS, INCIDENTS = 50, 40


def main(arguments: Sequence[str] | None = None) -> int:
    """Do failovers and incidents, and say what came of them; returns 1 if something was not told as
    it was.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--failovers", type=int, default=FAILOVERS, metavar="N")
    parser.add_argument("--incidents", type=int, default=INCIDENTS, metavar="N")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 100_000)
    chosen = parser.parse_args(arguments)
    wrong = 0
    if chosen.failovers:
        wrong += failovers(chosen.failovers, chosen.seed)
    if chosen.incidents:
        wrong += incidents(chosen.incidents, chosen.seed)
    return 1 if wrong else 0


def incidents(count: int, seed: int) -> int:
    """Have things go wrong while somebody is killed; returns how much was not told as it was."""
    print(f"{count} incidents, --seed {seed}", flush=True)
    began, wrong = time.monotonic(), 0
    with alerting.lab_of(*HOSTS) as lab, alerting.cluster_in(lab) as cluster:
        print(f"a cluster that mails in {time.monotonic() - began:.0f} s", flush=True)
        alerting.begin_anew(cluster)
        soak = Incidents(cluster, seed)
        for number, found in enumerate(soak.rounds(count), start=1):
            deaths = ", ".join(found.deaths)
            print(f"{number:3}  {found.seconds:4.0f} s  {found.name}; killed: {deaths}", flush=True)
            wrong += told(found.problems)
        problems, repeated = soak.judged()
        wrong += told(problems)
        seconds = time.monotonic() - began
        print(
            f"\n{count} incidents and {len(soak.deaths)} deaths in {seconds:.0f} s,"
            f" {len(cluster.mails())} mails, {repeated} of them again; {wrong} problems",
            flush=True,
        )
    return wrong


def told(problems: Sequence[str]) -> int:
    """Say what is wrong; returns how much that is."""
    for problem in problems:
        print(f"       NOT AS IT SHOULD BE: {problem}", flush=True)
    return len(problems)


def failovers(count: int, seed: int) -> int:
    """Do failovers; returns how many were told wrongly, and where the password was found."""
    print(f"{count} failovers, --seed {seed}", flush=True)
    began = time.monotonic()
    with Lab() as lab, closing(cluster_of(lab)) as cluster:
        print(f"a master and two directors in {time.monotonic() - began:.0f} s", flush=True)
        doing = Failovers(cluster, seed)
        doing.prepare()
        print(f"their highstate in {time.monotonic() - began:.0f} s", flush=True)
        done = []
        with doing.listening():
            for number, found in enumerate(doing.rounds(count), start=1):
                done.append(found)
                print(f"{number:3}  {found.gap:5.2f} s  {found.cause}", flush=True)
                told(found.problems)
        secrets = doing.secrets()
    print(table(done))
    wrong = sum(bool(found.problems) for found in done)
    print(f"\n{len(done)} failovers in {time.monotonic() - began:.0f} s, {wrong} told wrongly")
    print("\n".join(secrets) if secrets else "The password is in no log, event or return.")
    return wrong + len(secrets)


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
