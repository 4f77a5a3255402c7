"""The main job, shown: the guide's cluster from pillar to packets, two failures, their repair.

``make demo`` runs this in the lab. It ends by itself, with a table of what was shown, and with exit
status 0 only if all of it held.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from tests.lab import HOSTS, VIP, Lab, LabError, until
from tests.lab.client import Client, Replies
from tests.lab.cluster import MINIONS, SaltCluster
from tests.lab.progress import step

DIRECTORS = ("lb1", "lb2")
REAL_SERVERS = ("rs1", "rs2")
CLIENTS = [f"10.10.10.{number}" for number in range(101, 117)]
REQUESTS = 400
# What the guide's configuration makes of the kernel's table, as ipvsadm saves it.
TABLE = """\
-A -t 10.10.10.10:80 -s wlc -p 5
-a -t 10.10.10.10:80 -r 10.10.10.41:80 -g -w 50
-a -t 10.10.10.10:80 -r 10.10.10.42:80 -g -w 50
"""


@dataclass
class Shown:
    """What was shown so far: a line each, with its figure, and whether it held."""

    lines: list[tuple[bool, str, str]] = field(default_factory=list)

    def note(self, what: str, figure: str, held: bool) -> None:
        """Keep a line for the table at the end, and say it now."""
        self.lines.append((held, what, figure))
        print(f"  {'held' if held else 'DID NOT HOLD'}: {what}: {figure}\n", flush=True)

    @property
    def all_held(self) -> bool:
        """Whether everything did."""
        return all(held for held, _, _ in self.lines)

    def table(self) -> str:
        """All lines, as a person reads them."""
        width = max(len(what) for _, what, _ in self.lines)
        rows = [
            f"  {'yes' if held else 'NO ':3}  {what:{width}}  {figure}"
            for held, what, figure in self.lines
        ]
        return "\n".join([f"  held {'what was shown':{width}}  figure", *rows])


class Demo:
    """The story, a method for each of its parts, told in the order of :meth:`tell`."""

    def __init__(self, cluster: SaltCluster, shown: Shown) -> None:
        self.cluster = cluster
        self.lab = cluster.lab
        self.client = Client(cluster.lab["client"])
        self.shown = shown

    def tell(self) -> None:
        """All parts."""
        for part in (
            self.first_highstate,
            self.second_highstate,
            self.table,
            self.requests,
            self.silence,
            self.failover,
            self.return_of_lb1,
            self.lost_vip,
        ):
            part()

    # Salt

    def first_highstate(self) -> None:
        with step("Salt makes all four machines what the pillar says: salt '*' state.apply"):
            returned = self.cluster.first_highstate()
        counts = [f"{name} {changed(returned[name])}" for name in MINIONS]
        with step("Waiting until a director holds the VIP"):
            until(lambda: self.holders() == ["lb1"], "lb1 to hold the VIP", seconds=40)
        held = not any(failures(returned[name]) for name in MINIONS)
        self.shown.note("first highstate, states that changed", ", ".join(counts), held)

    def second_highstate(self) -> None:
        with step("The same once more"):
            returned = self.cluster.salt("*", "state.apply", timeout=300)
        counts = {name: changed(returned[name]) for name in MINIONS}
        held = not any(counts.values()) and not any(failures(returned[n]) for n in MINIONS)
        figure = ", ".join(f"{name} {count}" for name, count in counts.items())
        self.shown.note("second highstate, states that changed", figure, held)

    # The kernel

    def table(self) -> None:
        print("The kernel's table on lb1, as ipvsadm -Ln shows it:")
        print(indented(self.lab["lb1"].run(["ipvsadm", "-Ln"]).stdout))
        saved = {name: self.lab[name].run(["ipvsadm", "-Sn"]).stdout for name in DIRECTORS}
        same = [name for name in DIRECTORS if saved[name] == TABLE]
        held = same == list(DIRECTORS)
        self.shown.note("the kernel's table is the guide's", " and ".join(same) or "nowhere", held)

    # Packets

    def requests(self) -> None:
        with step(f"{REQUESTS} requests from {len(CLIENTS)} client addresses to {VIP}"):
            replies = self.client.get(VIP, sources=CLIENTS, requests=REQUESTS)
        self.shown.note(
            f"{REQUESTS} requests, answered by",
            spread(replies),
            not replies.errors and set(replies.by_server()) == set(REAL_SERVERS),
        )
        destinations = sorted({reply.destination for reply in replies.all if reply.server})
        self.shown.note(
            "the real servers saw them come to", ", ".join(destinations), destinations == [VIP]
        )
        pinned = [source for source, servers in replies.by_source().items() if len(servers) == 1]
        self.shown.note(
            "client addresses that stayed with one real server (persistence)",
            f"{len(pinned)} of {len(CLIENTS)}",
            len(pinned) == len(CLIENTS),
        )

    def silence(self) -> None:
        with (
            step("Asking on the wire who has the VIP"),
            self.lab["lb1"].capture() as on_lb1,
            self.lab["rs1"].capture() as on_rs1,
            self.lab["rs2"].capture() as on_rs2,
        ):
            for _ in range(3):
                self.lab["client"].run(["ip", "neighbour", "flush", "all"], check=True)
                self.client.get(VIP, sources=CLIENTS, requests=len(CLIENTS))
        director, *real = [
            sum(p.outgoing and p.kind == "arp" and p.source == VIP for p in packets)
            for packets in (on_lb1, on_rs1, on_rs2)
        ]
        figure = f"lb1 {director}, rs1 {real[0]}, rs2 {real[1]}"
        self.shown.note("ARP packets that claim the VIP", figure, director > 0 and real == [0, 0])

    # Failures

    def failover(self) -> None:
        with (
            step("keepalived on lb1 is killed (kill -9) while clients ask 20 times a second"),
            self.client.keep_asking(VIP, sources=CLIENTS, per_second=20) as asking,
        ):
            time.sleep(2)
            process = self.lab["lb1"].read("/run/keepalived.pid").strip()
            self.lab["lb1"].run(["kill", "-KILL", process], check=True)
            until(lambda: self.holders() == ["lb2"], "lb2 to take the VIP", seconds=40)
            time.sleep(2)
        gap = asking.replies.longest_gap()
        # lb2 waits for three advertisements, which come every 3 s, and a little longer.
        self.shown.note(
            "keepalived killed on lb1, clients served by lb2 after", f"{gap:.1f} s", gap < 13
        )

    def return_of_lb1(self) -> None:
        with (
            step("A highstate starts keepalived on lb1 again, which takes the VIP back"),
            self.client.keep_asking(VIP, sources=CLIENTS, per_second=20) as asking,
        ):
            returned = self.cluster.salt("lb1", "state.apply", timeout=300)
            until(lambda: self.holders() == ["lb1"], "lb1 to take the VIP back", seconds=60)
            time.sleep(1)
        replies = asking.replies
        figure = f"{len(replies.errors)} of {len(replies.all)} requests failed meanwhile"
        # A request that is under way then may break: connections this short are not synced.
        held = not failures(returned["lb1"]) and replies.longest_gap() < 2
        self.shown.note("lb1 holds the VIP again", figure, held)

    def lost_vip(self) -> None:
        rs1 = self.lab["rs1"]
        with (
            step("dummy0 is deleted on rs1, as after a reboot; then a highstate"),
            self.client.keep_asking(VIP, sources=CLIENTS, per_second=20, timeout=0.5) as asking,
        ):
            rs1.run(["ip", "link", "delete", "dummy0"], check=True)
            begun = time.monotonic()
            time.sleep(3)
            returned = self.cluster.salt("rs1", "state.apply", timeout=300)
            until(lambda: self.holds_vip("rs1"), "rs1 to hold the VIP")
            gap = time.monotonic() - begun
        lost = asking.replies
        figure = f"{len(lost.errors)} of {len(lost.all)} requests got no answer"
        self.shown.note("without dummy0 rs1 drops its clients", figure, bool(lost.errors))
        replies = self.client.get(VIP, sources=CLIENTS, requests=REQUESTS)
        held = not failures(returned["rs1"]) and not replies.errors
        both = set(replies.by_server()) == set(REAL_SERVERS)
        self.shown.note("a highstate put dummy0 back, after", f"{gap:.1f} s", held)
        self.shown.note(f"{REQUESTS} requests then, answered by", spread(replies), held and both)

    def holds_vip(self, name: str) -> bool:
        """Whether a real server has the VIP on its dummy interface."""
        show = ["ip", "-brief", "address", "show", "dev", "dummy0"]
        return f"{VIP}/32" in self.lab[name].run(show).stdout

    def holders(self) -> list[str]:
        """The directors that have the VIP on their card."""
        show = ["ip", "-brief", "address", "show", "dev", "eth0"]
        return [name for name in DIRECTORS if f"{VIP}/32" in self.lab[name].run(show).stdout]


def changed(answer: Any) -> int:
    """How many states of a highstate's answer changed something."""
    return sum(bool(state["changes"]) for state in states(answer))


def failures(answer: Any) -> list[str]:
    """What failed in a highstate's answer; said at once, because the table has no room for it."""
    found = [f"{s['__id__']}: {s['comment']}" for s in states(answer) if s["result"] is False]
    for line in found:
        print(f"  failed: {line}", flush=True)
    return found


def states(answer: Any) -> list[dict[str, Any]]:
    """The states of one minion's answer."""
    if not isinstance(answer, dict):
        raise LabError(f"a minion did not compile its states: {answer}")
    return list(answer.values())


def spread(replies: Replies) -> str:
    """Who answered how many."""
    answered = [f"{name} {count}" for name, count in sorted(replies.by_server().items())]
    return ", ".join([*answered, *([f"nobody {len(replies.errors)}"] * bool(replies.errors))])


def indented(text: str) -> str:
    """Some program's output, set off from ours."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def main() -> int:
    """Tell the story; 0 if all of it held."""
    begun = time.monotonic()
    shown = Shown()
    try:
        with step(f"Booting {len(HOSTS)} hosts: {', '.join(HOSTS)}"):
            lab = Lab()
            lab.start()
        with closing(SaltCluster(lab)) as cluster:
            with step("Starting a Salt master, four minions, two web servers and a mail server"):
                cluster.start()
            with step("Waiting until all minions answer"):
                cluster.wait()
            Demo(cluster, shown).tell()
    except (LabError, subprocess.SubprocessError) as error:
        print(f"\nThe demo broke off: {error}", file=sys.stderr)
        shown.lines.append((False, "the whole story", "broke off"))
    print(f"What was shown, in {time.monotonic() - begun:.0f} s:\n\n{shown.table()}\n")
    print("All of it held." if shown.all_held else "NOT all of it held.")
    return 0 if shown.all_held else 1


if __name__ == "__main__":
    sys.exit(main())
