"""One job of a round, in a process and a network of its own.

``python -m tests.bench.worker JOB VIRTUAL_SERVERS REAL_SERVERS_EACH`` prints the milliseconds (or
MB) of each step of the job as a JSON object. Each act on the kernel is followed by a look at
/proc/net/ip_vs, which none of us reads: what it shows must be the whole table.

A network of its own, because the kernel keeps deleted real servers for minutes and looks through
them whenever one is added. A process of its own, so that none finds its memory ready; it is warmed
up, all alike, with a table of one virtual server in another network.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from tests.bench import peers
from tests.bench.tables import (
    Size,
    Table,
    kernels,
    replacement_rules,
    stages,
    weight_rules,
)
from tests.lab import namespaces

Steps = dict[str, float]

SMALL = Size(1, 10)
SETTLED_WITHIN_SECONDS = 5


def main() -> None:
    """Do the job that the command line names, and print its steps."""
    name, virtual_servers, real_servers_each = sys.argv[1:]
    steps = JOBS[name](Size(int(virtual_servers), int(real_servers_each)))
    json.dump(steps, sys.stdout)


def timed(act: Callable[[], object]) -> float:
    """The milliseconds that an act takes."""
    started = time.perf_counter()
    act()
    return (time.perf_counter() - started) * 1000


def check(table: Table) -> None:
    """Fail unless the kernel holds the table, all of it and nothing else."""
    wanted = table.held()
    # New kernels make their table of virtual servers larger in the background. While they do, what
    # they show has some virtual servers twice and others not at all.
    deadline = time.monotonic() + SETTLED_WITHIN_SECONDS
    while kernels() != wanted:
        if time.monotonic() > deadline:
            raise SystemExit(f"the kernel does not hold {table}")


# --------------------------------------------------------------------------------------------------
# Ours


def create(size: Size) -> Steps:
    """Create the table, verified."""
    from tests.bench import ours

    return {"create": _create(size, ours.apply)}


def acknowledge(size: Size) -> Steps:
    """Create the table, acknowledged only."""
    from tests.bench import ours

    return {"create": _create(size, ours.acknowledged)}


def _create(size: Size, act: Callable[[dict[str, object]], None]) -> float:
    with namespaces.own_network():
        act(Table(SMALL).data())
    data = Table(size).data()
    with namespaces.own_network():
        took = timed(lambda: act(data))
        check(Table(size))
    return took


def change(size: Size) -> Steps:
    """Read and change a table that is there. Each change stands beside an apply that changes
    nothing, to be compared with it; what is done several times counts with its median.
    """
    from tests.bench import ours

    with namespaces.own_network():
        ours.apply(Table(SMALL).data())
        ours.listed()
    plain, reweighted, replaced = stages(size)
    with namespaces.own_network():
        peers.floor(size, "fill")
        check(plain)
        steps = {"list": timed(ours.listed), "read": timed(ours.read)}
        nothing, weights = [_apply(plain)], []
        for table in (reweighted, plain, reweighted):
            weights.append(_apply(table))
            nothing.append(_apply(table))
        steps["replace"] = _apply(replaced)
        nothing.append(_apply(replaced))
    return {**steps, "weights": median(weights), "nothing": median(nothing)}


def _apply(table: Table) -> float:
    from tests.bench import ours

    data = table.data()
    took = timed(lambda: ours.apply(data))
    check(table)
    return took


def memory(size: Size) -> Steps:
    """The MB by which a process grows at most when it creates the table: beside its dict, and with
    it. Nothing is warmed up here, for that would take memory before it is looked at.
    """
    from tests.bench import ours

    before = _memory("VmRSS")
    data = Table(size).data()
    with_dict = _memory("VmRSS")
    with namespaces.own_network():
        # From here on, the kernel notes the most that the process has (proc_pid_clear_refs(5)).
        Path("/proc/self/clear_refs").write_text("5")
        ours.apply(data)
        peak = _memory("VmHWM")
        check(Table(size))
    return {"apply": peak - with_dict, "dict and apply": peak - before}


def _memory(kind: str) -> float:
    """The MB that the process has now (VmRSS), or had at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(kind)).split()[1]) * 1024 / 1e6


# --------------------------------------------------------------------------------------------------
# Others


def floor(size: Size) -> Steps:
    """All steps of the floor."""
    with namespaces.own_network():
        steps = peers.floor_steps(size)
        check(stages(size)[-1])
    return steps


def ipvsadm(size: Size) -> Steps:
    """The same with ipvsadm, which knows no plan: it is told what to change."""
    plain, reweighted, replaced = stages(size)
    with tempfile.TemporaryDirectory() as folder, namespaces.own_network():
        rules = Path(folder, "rules")
        rules.write_text(plain.rules())
        steps = {"create": peers.ipvsadm("-R", rules)}
        check(plain)
        steps["list"] = peers.ipvsadm("-Sn")
        rules.write_text(weight_rules(size))
        steps["weights"] = peers.ipvsadm("-R", rules)
        check(reweighted)
        rules.write_text(replacement_rules(size))
        steps["replace"] = peers.ipvsadm("-R", rules)
        check(replaced)
    return steps


def pyroute2(size: Size) -> Steps:
    """The same with pyroute2's IPVS."""
    with namespaces.own_network():
        peers.Pyroute2().create(Table(SMALL))
    plain, reweighted, _ = stages(size)
    with namespaces.own_network():
        ipvs = peers.Pyroute2()
        steps = {"create": timed(lambda: ipvs.create(plain))}
        check(plain)
        steps["list"] = timed(ipvs.read)
        steps["weights"] = timed(lambda: ipvs.set_weights(size))
        check(reweighted)
    return steps


JOBS: dict[str, Callable[[Size], Steps]] = {
    "create": create,
    "acknowledge": acknowledge,
    "change": change,
    "memory": memory,
    "floor": floor,
    "ipvsadm": ipvsadm,
    "pyroute2": pyroute2,
}


if __name__ == "__main__":
    main()
