"""A shell in the lab, for a person: ``python -m tests.lab shell``, which starts this inside it.

The shell's own commands are in ``scripts/bin``. What only the process that holds the hosts can do
comes to it as lines of a FIFO.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.lab.client import Client
from tests.lab.cluster import SaltCluster
from tests.lab.errors import LabError
from tests.lab.lab import HOSTS, VIP, Lab
from tests.lab.progress import step
from tests.lab.waiting import until

SCRIPTS = Path(__file__).parent / "scripts"
QUESTIONS = Path("/run/lab/questions")
ANSWERS = Path("/run/lab/answers")
CLIENTS = [f"10.10.10.{number}" for number in range(101, 117)]

HOSTS_TO_TRY = """
  on HOST [COMMAND]                 in one of: {hosts}
  power HOST off                    the power fails; power HOST on boots it from its disk
                                    (its minion answers some seconds later)
"""

CLUSTER_TO_TRY = """
The cluster: directors lb1 and lb2, real servers rs1 and rs2, and {vip} for clients.

  on lb1 ipvsadm -Ln                the kernel's table of virtual servers
  ask 64                            64 requests from 16 client addresses, and who answered
  on client curl -s {vip}     one request, and which addresses the real server saw
  salt '*' test.ping                Salt's master and minions
  salt 'lb*' ipvs.list              the table, as Salt reads it
  salt-run lvs.validate             what the master thinks of the pillar (/srv/pillar on master)
  salt '*' state.apply              the highstate again: nothing to change

Break something, and watch:

  on rs1 ip link delete dummy0      rs1 loses the VIP: ask, then salt rs1 state.apply, then ask
  power lb1 off                     lb2 takes over: ask; and power lb1 on
  on lb1 ipvsadm -C                 the table is gone: salt lb1 state.apply
{hosts}
"exit" ends everything; nothing of it stays on this machine.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Bring up the lab, give it to the person, and take it away."""
    hosts_only = "--hosts-only" in (sys.argv[1:] if arguments is None else arguments)
    try:
        lab = Lab()
        with step(f"Booting {len(HOSTS)} hosts"):
            lab.start()
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 70
    if hosts_only:
        print(_hosts_to_try())
        return _run_shell(lab)
    try:
        with closing(SaltCluster(lab)) as cluster:
            _bring_up(cluster)
    except LabError as error:
        # The hosts are up, and this is where to find out.
        print(f"lab: {error}; so not all of this will work:", file=sys.stderr)
    print(CLUSTER_TO_TRY.format(vip=VIP, hosts=_hosts_to_try()))
    return _run_shell(lab)


def _hosts_to_try() -> str:
    return HOSTS_TO_TRY.format(hosts=", ".join(HOSTS))


def _bring_up(cluster: SaltCluster) -> None:
    with step("Starting the Salt master and its minions"):
        cluster.start()
    with step("Waiting until all minions answer"):
        cluster.wait()
    with step("Applying the highstate to all minions, and waiting for those that restart"):
        returned = cluster.highstate()
    print("\n".join(_summary(name, answer) for name, answer in sorted(returned.items())))
    with step("Waiting for the VIP"):
        address = ["ip", "-brief", "address", "show", "dev", "eth0"]
        until(lambda: f"{VIP}/" in cluster.lab["lb1"].run(address).stdout, "lb1 to hold the VIP")


def _summary(minion: str, answer: Any) -> str:
    """A highstate's answer in a line, or what failed in it."""
    if not isinstance(answer, dict):
        return f"  {minion}: {answer}"
    states = answer.values()
    changed = sum(bool(state["changes"]) for state in states)
    failed = [
        f"\n    {state['__id__']}: {state['comment']}"
        for state in states
        if state["result"] is False
    ]
    counts = f"{len(answer)} states, {changed} of them changed something, {len(failed)} failed"
    return f"  {minion}: {counts}{''.join(failed)}"


# The shell


def _run_shell(lab: Lab) -> int:
    for fifo in (QUESTIONS, ANSWERS):
        os.mkfifo(fifo)
    # Both ways, so that they stay open whoever comes and goes.
    questions, answers = (os.open(fifo, os.O_RDWR) for fifo in (QUESTIONS, ANSWERS))
    path = f"{SCRIPTS / 'bin'}:{os.environ['PATH']}"
    command = [shutil.which("bash") or "sh", "--rcfile", str(SCRIPTS / "shell.bash"), "-i"]
    shell = subprocess.Popen(command, env={**os.environ, "PATH": path}, cwd="/root")
    ended = os.pidfd_open(shell.pid)
    while True:
        ready, _, _ = select.select([ended, questions], [], [])
        if ended in ready:
            break
        for line in os.read(questions, 4096).decode().splitlines():
            number, *words = line.split()
            os.write(answers, f"{number} {_answer(lab, words)}\n".encode())
    shell.wait()
    return 0


def _answer(lab: Lab, words: Sequence[str]) -> str:
    """Do what a command of the shell asks for, and say in one line how it went."""
    try:
        if words[0] == "power":
            return _power(lab, *words[1:])
        return _ask(lab, *words[1:])
    except (LabError, TypeError, ValueError, KeyError) as error:
        return f"{' '.join(words)}: {str(error).splitlines()[0]}"


def _power(lab: Lab, name: str, wanted: str) -> str:
    if name not in lab.hosts or wanted not in ("off", "on"):
        return f"power HOST off|on, where HOST is one of {', '.join(lab.hosts)}"
    host = lab[name]
    if wanted == "off":
        host.power_cut()
    elif not host.is_on:
        host.boot()
    return f"{name} is {wanted}"


def _ask(lab: Lab, number: str = "64") -> str:
    replies = Client(lab["client"]).get(VIP, sources=CLIENTS, requests=int(number))
    by_server = [f"{name} {count}" for name, count in sorted(replies.by_server().items())]
    counts = [*by_server, *([f"nobody {len(replies.errors)}"] * bool(replies.errors))]
    return f"{number} requests from {len(CLIENTS)} addresses to {VIP}: {', '.join(counts)}"


if __name__ == "__main__":
    sys.exit(main())
