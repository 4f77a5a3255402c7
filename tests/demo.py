"""The main job, shown: a cluster from pillar to packets, failures, and what mends them.

``make demo`` runs this in the lab. It ends by itself, with a table of what was shown, and with exit
status 0 only if all of it held.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from email.header import decode_header, make_header
from email.message import Message
from math import inf
from pathlib import Path
from typing import Any

from tests.lab import HOSTS, VIP, Lab, LabError, services, until
from tests.lab.bus import Bus, Event
from tests.lab.capture import Packet
from tests.lab.client import Client, Replies, Reply
from tests.lab.cluster import MINIONS, SaltCluster
from tests.lab.progress import step

DIRECTORS = ("lb1", "lb2")
REAL_SERVERS = ("rs1", "rs2")
CLIENTS = [f"10.10.10.{number}" for number in range(101, 117)]
REQUESTS = 400
# What the pillar makes of the kernel's table, as ipvsadm saves it.
TABLE = """\
-A -t 10.10.10.10:80 -s wrr -p 5
-a -t 10.10.10.10:80 -r 10.10.10.41:80 -g -w 50
-a -t 10.10.10.10:80 -r 10.10.10.42:80 -g -w 50
"""
# Seconds for which that table keeps a client address with its real server.
PERSISTENCE = 5
MASTER_SNIPPETS = {
    name: Path(__file__).resolve().parents[1] / "lvs/files" / name
    for name in ("master.conf", "alerts.conf")
}
# The pillar's advert_int is 3 s. A backup waits for three of them, and up to 1 s more (RFC 3768).
LONGEST_TAKEOVER_SECONDS = 3 * 3 + 1
# What is changed of that pillar. The example asks a real server every ten seconds, which nobody
# would like to watch. By wlc one that comes back with old connections on it, as after a crash, gets
# its weight at once, and then all new clients.
PILLAR = "/srv/pillar/production/lvs.sls"
EDITS = (
    ("scheduler: wlc", "scheduler: wrr"),
    (
        "      forward: direct\n",
        "      forward: direct\n"
        "      check: {interval: 0.5, connect_timeout: 1}\n"
        "      slow_start: 5\n",
    ),
    # A person would not want mail so soon; whoever watches this does.
    ("    smtp_server: localhost\n", "    smtp_server: localhost\n    settle: 5\n    fold: 5\n"),
)
NOTICED_WITHIN_SECONDS = 0.5 + 1
FULL = 50
# What a client may wait in vain although nothing is wrong: this machine may be busy.
SLACK_SECONDS = 2.0

INTRODUCTION = f"""\
Two directors (lb1, lb2) share the address {VIP} and spread its clients over two real servers
(rs1, rs2). Salt makes them so, from pillar.example/production, by weight (wrr), with real
servers asked twice a second and brought back over five, and its master mails what is wrong. All
machines are small ones in the lab, and gone when this ends.
"""


@dataclass
class Shown:
    """What was shown so far: a line each, with its figure, and whether it held."""

    lines: list[tuple[bool, str, str]] = field(default_factory=list)

    def note(self, what: str, figure: str, held: bool) -> None:
        """Keep a line for the table at the end, and say it now."""
        self.lines.append((held, what, figure))
        print(f"  {'' if held else 'THIS DID NOT HOLD: '}{what}: {figure}", flush=True)

    @property
    def broken(self) -> list[str]:
        """What did not hold."""
        return [f"{what}: {figure}" for held, what, figure in self.lines if not held]

    def table(self) -> str:
        """All lines, as a person reads them."""
        width = max((len(what) for _, what, _ in self.lines), default=0)
        rows = [
            f"  {'yes' if held else 'NO':4}  {what:{width}}  {figure}"
            for held, what, figure in self.lines
        ]
        return "\n".join([f"  held  {'what was shown':{width}}  figure", *rows])


@dataclass(frozen=True)
class Outage:
    """What clients saw of a failure, which began at ``began`` seconds of the replies' clock."""

    replies: Replies
    began: float

    def lasted(self) -> dict[str, float]:
        """By client address that got no answer: the seconds until it was served again."""
        found: dict[str, float] = {}
        for reply in self.replies.all:
            if reply.error and reply.ended > self.began:
                found.setdefault(reply.source, self._served(reply) - self.began)
        return found

    def _served(self, failed: Reply) -> float:
        """When the client address of a failed request was served again."""
        later = (r for r in self.replies.all if r.source == failed.source and r.server)
        return min((r.ended for r in later if r.began > failed.began), default=inf)


class Teller:
    """Says, in a line each, what directors tell of VRRP on the master's bus.

    began
        What times are counted from, in seconds of ``time.monotonic()``.
    """

    def __init__(self, bus: Bus, began: float) -> None:
        self._bus, self._began = bus, began
        self._read = len(bus.events)
        # Who, was, now, and when.
        self.transitions: list[tuple[str, str, str, float]] = []

    def told(self) -> bool:
        """Say what is new; always true."""
        new = self._bus.events[self._read :]
        self._read += len(new)
        for event in new:
            if event.tag.endswith("/keepalived_vrrp/change"):
                self._say(event)
        return True

    def _say(self, event: Event) -> None:
        at = event.at - self._began
        for change in event.data["changes"]:
            if "vrrp_instance" not in change:
                continue
            was, now = change["was"], change["now"]
            line = f"{at:5.2f} s  {event.data['id']}  {change['vrrp_instance']}  {was} -> {now}"
            problem = f"  ({change['problem']})" if change.get("problem") else ""
            print(f"    {line}{problem}", flush=True)
            self.transitions.append((event.data["id"], str(was), str(now), at))


class Demo:
    """The story, a method for each of its parts, told in the order of :meth:`tell`."""

    def __init__(self, cluster: SaltCluster, shown: Shown) -> None:
        self.cluster = cluster
        self.lab = cluster.lab
        self.client = Client(cluster.lab["client"])
        self.shown = shown

    def tell(self) -> None:
        """All parts."""
        parts = {
            "Salt makes all four machines what the pillar says": self.first_highstate,
            "The same once more": self.second_highstate,
            "What the directors' kernels hold": self.table,
            "Requests": self.requests,
            "keepalived dies on lb1": self.killed_keepalived,
            "A highstate mends lb1": self.return_of_lb1,
            "rs1 loses its dummy0, and mends itself": self.lost_and_repaired,
            "The web server dies on rs2, and comes back": self.dead_web_server,
            "rs1 loses it while its own minion is away": self.lost_unseen,
            "The power fails on lb1": self.power_cut,
            "The mails of all that": self.mails,
        }
        for number, (title, part) in enumerate(parts.items(), start=1):
            print(f"\n{number}. {title}", flush=True)
            part()

    # Salt

    def first_highstate(self) -> None:
        with step("  salt '*' state.apply, and the minions restart themselves"):
            returned = self.cluster.highstate()
        with step("  Waiting until lb1 holds the VIP"):
            self.wait_for_holder("lb1")
        self.note_highstate("first highstate: states that changed", returned)

    def second_highstate(self) -> None:
        with step("  salt '*' state.apply"):
            returned = self.cluster.salt("*", "state.apply", timeout=300)
        self.note_highstate("second highstate: states that changed", returned, nothing=True)

    def note_highstate(self, what: str, returned: dict[str, Any], nothing: bool = False) -> None:
        """Note how many states changed something; with ``nothing``, none may have."""
        counts = {name: changed(returned[name]) for name in MINIONS}
        figure = ", ".join(f"{name} {count}" for name, count in counts.items())
        failed = [line for name in MINIONS for line in failures(returned[name])]
        fits = not any(counts.values()) if nothing else all(counts.values())
        self.shown.note(what, figure, fits and not failed)

    # The kernel

    def table(self) -> None:
        saved = {}
        for name in DIRECTORS:
            print(f"  ipvsadm -Ln on {name}:\n")
            print(indented(self.lab[name].run(["ipvsadm", "-Ln"], check=True).stdout) + "\n")
            saved[name] = self.lab[name].run(["ipvsadm", "-Sn"], check=True).stdout
        same = [name for name in DIRECTORS if saved[name] == TABLE]
        figure = " and ".join(same) or "nowhere"
        self.shown.note("the table is the pillar's, to the letter", figure, len(same) == 2)

    # Packets

    def requests(self) -> None:
        batches = []
        with (
            step(f"  {REQUESTS} requests from {len(CLIENTS)} client addresses to {VIP}"),
            self.lab["lb1"].capture() as on_lb1,
            self.lab["rs1"].capture() as on_rs1,
            self.lab["rs2"].capture() as on_rs2,
        ):
            for _ in range(4):
                # So that the client asks again whose address it is.
                self.lab["client"].run(["ip", "neighbour", "flush", "all"], check=True)
                batches.append(self.client.get(VIP, sources=CLIENTS, requests=REQUESTS // 4))
        replies = Replies(tuple(reply for batch in batches for reply in batch.all))
        self.note_spread(f"{REQUESTS} requests, answered by", replies)
        destinations = {reply.destination for reply in replies.all if reply.server}
        self.shown.note(
            "address that rs1 and rs2 saw them come to", listed(destinations), destinations == {VIP}
        )
        served = [servers for batch in batches for servers in batch.by_source().values()]
        pinned = sum(len(servers) == 1 for servers in served)
        self.shown.note(
            "client addresses that stayed with one real server",
            f"{pinned // len(batches)} of {len(CLIENTS)}",
            pinned == len(served),
        )
        claims = [claims_of_vip(packets) for packets in (on_lb1, on_rs1, on_rs2)]
        self.shown.note(
            "ARP packets in which they claim the VIP",
            f"lb1 {claims[0]}, rs1 {claims[1]}, rs2 {claims[2]}",
            claims[0] > 0 and claims[1:] == [0, 0],
        )

    def note_spread(self, what: str, replies: Replies) -> None:
        """Note who answered; both real servers should have, and every request."""
        both = set(replies.by_server()) == set(REAL_SERVERS)
        self.shown.note(what, spread(replies), both and not replies.errors)

    # Failures

    def killed_keepalived(self) -> None:
        lb1 = self.lab["lb1"]
        print("  kill -9, while clients ask 20 times a second. On the master's bus:", flush=True)
        with (
            Bus(self.cluster.master) as bus,
            self.client.keep_asking(VIP, sources=CLIENTS) as asking,
        ):
            time.sleep(2)
            teller = Teller(bus, time.monotonic())
            lb1.run(["kill", "-KILL", lb1.read("/run/keepalived.pid").strip()], check=True)
            until(
                lambda: teller.told() and self.holders() == ["lb2"],
                "lb2 alone to hold the VIP",
                seconds=60,
            )
            time.sleep(2)
            teller.told()
        gap = asking.replies.longest_gap()
        held = gap < LONGEST_TAKEOVER_SECONDS + SLACK_SECONDS
        self.shown.note("keepalived killed on lb1: lb2 serves after", seconds(gap), held)
        self.note_transitions(teller)
        self.note_mastership("lb2")

    def note_transitions(self, teller: Teller) -> None:
        """Note whether the master was told that one has left and the other has taken over."""
        left = [one for one in teller.transitions if one[0] == "lb1" and one[2] != "MASTER"]
        taken = [one for one in teller.transitions if one[0] == "lb2" and one[2] == "MASTER"]
        figure = ", ".join(f"{who} {now} at {at:.1f} s" for who, _, now, at in left[:1] + taken[:1])
        self.shown.note("and the master was told", figure or "nothing", bool(left and taken))

    def note_mastership(self, director: str) -> None:
        """Ask as the operator does who holds the VIP now."""
        with step("  salt-run lvs.mastership lb1"):
            answer = self.cluster.salt_run("lvs.mastership", "lb1", "settle=True")
        standing = answer["vips"][VIP]
        for side in standing["sides"]:
            print(f"    {side}")
        figure = f"{', '.join(standing['holders']) or 'nobody'} ({standing['verdict']})"
        self.shown.note(
            "salt-run lvs.mastership: who holds the VIP", figure, figure == f"{director} (held)"
        )

    def return_of_lb1(self) -> None:
        with (
            step("  salt lb1 state.apply starts keepalived, which takes the VIP back"),
            self.client.keep_asking(VIP, sources=CLIENTS) as asking,
        ):
            returned = self.cluster.salt("lb1", "state.apply", timeout=300)
            self.wait_for_holder("lb1")
            time.sleep(1)
        gap = asking.replies.longest_gap()
        held = not failures(returned["lb1"]) and gap < SLACK_SECONDS
        self.shown.note("lb1 takes the VIP back: no answer for", seconds(gap), held)

    def dead_web_server(self) -> None:
        rs2 = self.lab["rs2"]
        self.wait_for_weight("rs1", FULL)
        with step("  service lab-web stop on rs2; the directors notice, and nobody else acts"):
            outage, noticed = self.fail_rs2()
        self.shown.note(
            "web server dies on rs2: both directors give it weight 0 after",
            seconds(noticed),
            noticed < NOTICED_WITHIN_SECONDS + SLACK_SECONDS,
        )
        lasted = outage.lasted()
        longest = max(lasted.values(), default=0.0)
        self.shown.note(
            f"{len(lasted)} of {len(CLIENTS)} client addresses are refused; served again after",
            seconds(longest),
            longest < NOTICED_WITHIN_SECONDS + SLACK_SECONDS,
        )
        replies = self.some_requests()
        held = not replies.errors and set(replies.by_server()) == {"rs1"}
        self.shown.note("and then 64 requests, answered by", spread(replies), held)
        with (
            step("  service lab-web start on rs2, while clients ask"),
            self.client.keep_asking(VIP, sources=CLIENTS) as asking,
        ):
            rs2.run(["service", "lab-web", "start"], check=True)
            steps = self.weights_until("rs2", FULL)
        self.shown.note(
            "rs2 is back: its weight on lb1, over five seconds",
            ", ".join(map(str, steps)),
            len(steps) > 2 and steps == sorted(steps),
        )
        errors = len(asking.replies.errors)
        self.shown.note("requests without an answer meanwhile", str(errors), not errors)

    def fail_rs2(self) -> tuple[Outage, float]:
        """Stop rs2's web server while clients ask; also after how long both directors knew."""
        with self.client.keep_asking(VIP, sources=CLIENTS, per_second=60, timeout=0.5) as asking:
            first_reply = time.monotonic()
            time.sleep(1)
            died = time.monotonic()
            self.lab["rs2"].run(["service", "lab-web", "stop"], check=True)
            self.wait_for_weight("rs2", 0)
            noticed = time.monotonic() - died
            time.sleep(2)
        replies = asking.replies
        return Outage(replies, replies.all[0].ended + died - first_reply), noticed

    def weights_until(self, real_server: str, last: int) -> list[int]:
        """The weights above 0 that a real server has on lb1, until it has the last."""
        seen: list[int] = []

        def look() -> bool:
            weight = self.weight("lb1", real_server)
            if weight and weight != (seen[-1] if seen else 0):
                seen.append(weight)
            return weight == last

        until(look, f"{real_server} to have weight {last}", seconds=60, pause=0.05)
        return seen

    def wait_for_weight(self, real_server: str, weight: int) -> None:
        """Wait until it has this weight on both directors."""
        until(
            lambda: all(self.weight(name, real_server) == weight for name in DIRECTORS),
            f"{real_server} to have weight {weight}",
            seconds=60,
            pause=0.02,
        )

    def weight(self, director: str, real_server: str) -> int | None:
        """What a director's kernel has for a real server."""
        saved = self.lab[director].run(["ipvsadm", "-Sn"], check=True).stdout
        address = re.escape(self.lab[real_server].address)
        found = re.search(rf"^-a -t {VIP}:80 -r {address}:80 .*-w (\d+)$", saved, re.MULTILINE)
        return int(found[1]) if found else None

    def lost_and_repaired(self) -> None:
        with step("  ip link delete dummy0, as a reboot would; nobody else does anything"):
            outage = self.lose_dummy0()
        lasted = outage.lasted()
        figure = f"{len(lasted)} of {len(CLIENTS)} client addresses miss an answer"
        self.shown.note("rs1 without its dummy0", figure, len(lasted) < len(CLIENTS))
        longest = max(lasted.values(), default=0.0)
        self.shown.note(
            "put back by rs1 itself: all are served after", seconds(longest), longest < 3
        )

    def lose_dummy0(self) -> Outage:
        """Delete dummy0 on rs1 while clients ask, and wait until it is back."""
        until(self.both_have_clients, "both real servers to have clients", pause=PERSISTENCE + 1)
        with self.client.keep_asking(VIP, sources=CLIENTS, per_second=60, timeout=0.5) as asking:
            first_reply = time.monotonic()
            time.sleep(2)
            lost = time.monotonic()
            self.lab["rs1"].run(["ip", "link", "delete", "dummy0"], check=True)
            until(self.rs1_holds_vip, "rs1 to hold the VIP again", seconds=60)
            time.sleep(2)
        replies = asking.replies
        return Outage(replies, replies.all[0].ended + lost - first_reply)

    def lost_unseen(self) -> None:
        rs1 = self.lab["rs1"]
        with step("  rs1's minion is stopped, and dummy0 deleted: its web server answers still"):
            self.wait_for_weight("rs1", FULL)
            rs1.run(["service", "salt-minion", "stop"], check=True)
            lost = time.monotonic()
            rs1.run(["ip", "link", "delete", "dummy0"], check=True)
            self.wait_for_weight("rs1", 0)
            noticed = time.monotonic() - lost
            reason = self.reason("rs1")
        print(f"    lb1 says why: {reason}", flush=True)
        self.shown.note(
            "dummy0 lost, seen by asking through the VIP: weight 0 after",
            seconds(noticed),
            noticed < NOTICED_WITHIN_SECONDS + SLACK_SECONDS and VIP in reason,
        )
        replies = self.some_requests()
        held = not replies.errors and set(replies.by_server()) == {"rs2"}
        self.shown.note("and then 64 requests, answered by", spread(replies), held)
        with step("  rs1's minion starts, and puts it back"):
            rs1.run(["service", "salt-minion", "start"], check=True)
            self.wait_for_weight("rs1", FULL)
        self.shown.note("rs1 has its VIP and its weight again", str(FULL), self.rs1_holds_vip())

    def reason(self, real_server: str) -> str:
        """Why lb1 does not let clients to a real server, as an operator asks it."""
        told = self.cluster.salt("lb1", "lvs.health", "web")["lb1"]
        one = told["virtual_servers"]["web"]["real_servers"][real_server]
        return str(one["reason"])

    def power_cut(self) -> None:
        with (
            step("  lb1 is switched off, while clients ask 20 times a second"),
            self.client.keep_asking(VIP, sources=CLIENTS) as asking,
        ):
            time.sleep(2)
            self.lab["lb1"].power_cut()
            self.wait_for_holder("lb2")
            time.sleep(2)
        gap = asking.replies.longest_gap()
        held = gap < LONGEST_TAKEOVER_SECONDS + SLACK_SECONDS
        self.shown.note("power cut on lb1: lb2 serves after", seconds(gap), held)
        self.note_spread("and then 64 requests, answered by", self.some_requests())

    # Mail

    def mails(self) -> None:
        with step("  Waiting for the mail that lb1 is gone"):
            until(
                lambda: any("lb1" in told and "not answer" in told for told in self.subjects()),
                "a mail that lb1 does not answer",
                seconds=90,
                pause=1,
            )
        taken = self.cluster.mails()
        for mail in taken:
            print(f"    {mail['Date']}  {subject_of(mail)}", flush=True)
        thread = [mail for mail in taken if "rs2:80" in subject_of(mail)]
        for mail in thread:
            print(f"\n{indented(readable(mail))}", flush=True)
        print()
        out, back = (
            sum(word in subject_of(mail) for mail in thread) for word in ("OUT of web", "back in")
        )
        self.shown.note(
            "mails that rs2 is out, and that it is back", f"{out} and {back}", out == back == 1
        )
        ids = [str(mail["Message-ID"]) for mail in taken]
        self.shown.note(
            "mails in all, none twice", str(len(ids)), len(ids) == len(set(ids)) and len(ids) < 16
        )

    def subjects(self) -> list[str]:
        return [subject_of(mail) for mail in self.cluster.mails()]

    def some_requests(self) -> Replies:
        """64 requests from all client addresses."""
        return self.client.get(VIP, sources=CLIENTS, requests=64)

    # Looks

    def both_have_clients(self) -> bool:
        """Whether each real server has a quarter of the client addresses, or more.

        Which one an address gets depends on the connections before; then it stays with that one.
        """
        replies = self.client.get(VIP, sources=CLIENTS, requests=len(CLIENTS))
        counts = [replies.by_server().get(name, 0) for name in REAL_SERVERS]
        return min(counts) >= len(CLIENTS) // 4

    def rs1_holds_vip(self) -> bool:
        """Whether rs1 has the VIP on its dummy interface."""
        show = ["ip", "-brief", "address", "show", "dev", "dummy0"]
        return f"{VIP}/32" in self.lab["rs1"].run(show).stdout

    def wait_for_holder(self, director: str) -> None:
        """Wait until this director alone has the VIP on its card."""
        until(lambda: self.holders() == [director], f"{director} alone to hold the VIP", seconds=60)

    def holders(self) -> list[str]:
        """The directors that have the VIP on their card."""
        show = ["ip", "-brief", "address", "show", "dev", "eth0"]
        living = [self.lab[name] for name in DIRECTORS if self.lab[name].is_on]
        return [host.name for host in living if f"{VIP}/32" in host.run(show).stdout]


def subject_of(mail: Message) -> str:
    """A mail's subject, as a person reads it."""
    return str(make_header(decode_header(str(mail["Subject"]).replace("\n", ""))))


def readable(mail: Message) -> str:
    """A mail, as a person reads it."""
    heads = [f"{name}: {mail[name]}" for name in ("From", "To", "Date")]
    plain = next(part for part in mail.walk() if part.get_content_type() == "text/plain")
    text = plain.get_payload(decode=True)
    assert isinstance(text, bytes)
    return "\n".join([*heads, f"Subject: {subject_of(mail)}", "", text.decode("utf-8")])


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


def claims_of_vip(packets: Sequence[Packet]) -> int:
    """How many ARP packets a machine sent that name the VIP as the sender's address."""
    return sum(p.outgoing and p.kind == "arp" and p.source == VIP for p in packets)


def spread(replies: Replies) -> str:
    """Who answered how many."""
    answered = [f"{name} {count}" for name, count in sorted(replies.by_server().items())]
    return ", ".join([*answered, *([f"nobody {len(replies.errors)}"] * bool(replies.errors))])


def seconds(number: float) -> str:
    """A time to read."""
    return f"{number:.1f} s"


def listed(words: set[str]) -> str:
    """Some words to read."""
    return ", ".join(sorted(words))


def indented(text: str) -> str:
    """Some program's output, set off from ours."""
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines())


def run(shown: Shown) -> None:
    """Bring up the lab and the cluster, and tell the story."""
    with ExitStack() as stack:
        with step(f"Booting {len(HOSTS)} machines: {', '.join(HOSTS)}"):
            lab = stack.enter_context(Lab())
        # What the SLS lvs.master and lvs.alerts write: what the master answers, and tells.
        for name, path in MASTER_SNIPPETS.items():
            lab["master"].write(f"/etc/salt/master.d/saltext-lvs-{name}", path.read_text())
        cluster = stack.enter_context(closing(SaltCluster(lab)))
        with step("Starting Salt's master and minions, two web servers, a mail server"):
            cluster.start()
        with step("Waiting until all four minions answer"):
            cluster.wait()
        pillar = cluster.master.read(PILLAR)
        for edit in EDITS:
            pillar = pillar.replace(*edit)
        cluster.master.write(PILLAR, pillar)
        with step("Restarting Salt's master, which has its part of the extension now"):
            services.restart(cluster.master, "salt-master")
            cluster.close()
            until(cluster.master_listens, "the master to listen", seconds=60)
            cluster.wait()
        Demo(cluster, shown).tell()


def main() -> int:
    """Tell the story; 0 if all of it held."""
    begun = time.monotonic()
    shown = Shown()
    print(INTRODUCTION, flush=True)
    try:
        run(shown)
    except (LabError, subprocess.SubprocessError) as error:
        shown.note("the demo broke off", str(error), False)
    print(f"\nWhat was shown, in {time.monotonic() - begun:.0f} s:\n\n{shown.table()}\n")
    for line in shown.broken:
        print(f"This did not hold: {line}")
    if not shown.broken:
        print("All of it held.")
    return 1 if shown.broken else 0


if __name__ == "__main__":
    sys.exit(main())
