"""Several who write to one IPVS table: another program all the while, two of ours at once, and one
that is killed half-way. Nothing is lost without a word, and the next apply completes everything.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random

import pytest
from saltext.lvs import ipvs, locking, plan
from saltext.lvs.model import RealServer, VirtualServer, VirtualServerKey
from saltext.lvs.table import Table

from tests.kernel import children
from tests.kernel.commands import ipvsadm
from tests.unit.tables import key, real_server, table, virtual_server

pytestmark = pytest.mark.usefixtures("netns")

SEED = 3
WEB, SHOP, DNS = "tcp 10.10.10.10:80", "tcp 10.10.10.11:80", "udp 10.10.10.10:53"
FOREIGN = "tcp 10.10.10.99:80"
NUMBERS = range(41, 47)


def few(*weights: int) -> list[RealServer]:
    """Real servers 10.10.10.41 and on, with these weights; one that weighs nothing is drained."""
    return [real_server(f"10.10.10.{41 + at}:80", weight) for at, weight in enumerate(weights)]


FIRST = table(
    virtual_server(WEB, *few(50, 50), persistence=5),
    virtual_server(SHOP, *few(1, 2, 3), scheduler="rr"),
    virtual_server(DNS, scheduler="sh"),
)
SECOND = table(
    virtual_server(WEB, *few(50, 0, 7), scheduler="lc"),
    virtual_server(SHOP, *few(3, 2), scheduler="rr"),
    virtual_server(DNS, real_server("10.10.10.41:53"), scheduler="rr"),
)
SECOND_AS_IPVSADM_SAYS_IT = """\
-A -t 10.10.10.10:80 -s lc
-A -t 10.10.10.11:80 -s rr
-A -u 10.10.10.10:53 -s rr
-a -t 10.10.10.10:80 -r 10.10.10.41:80 -g -w 50
-a -t 10.10.10.10:80 -r 10.10.10.42:80 -g -w 0
-a -t 10.10.10.10:80 -r 10.10.10.43:80 -g -w 7
-a -t 10.10.10.11:80 -r 10.10.10.41:80 -g -w 3
-a -t 10.10.10.11:80 -r 10.10.10.42:80 -g -w 2
-a -u 10.10.10.10:53 -r 10.10.10.41:53 -g -w 1
"""


def rules() -> str:
    """The table as ipvsadm tells it, in the order of its lines."""
    return "".join(sorted(ipvsadm("-Sn").splitlines(keepends=True)))


def told(ops: Iterable[plan.Op]) -> list[str]:
    """Operations as sentences; those on different virtual servers may come in any order."""
    return sorted(f"{op}: {op.before()} -> {op.after()}" for op in ops)


def meddling(random: Random) -> str:
    """A line of ipvsadm's that changes a virtual server or real server, of ours or of others."""
    flag, _, endpoint = random.choice([WEB, WEB, SHOP, DNS, FOREIGN]).partition(" ")
    service = f"-{flag[0]} {endpoint}"
    port = endpoint.rpartition(":")[2]
    real = f"-r 10.10.10.{random.choice(NUMBERS)}:{port}"
    return random.choice(
        [
            f"-A {service} -s wlc",
            f"-E {service} -s {random.choice(['rr', 'lc', 'sh'])}",
            f"-E {service} -s wlc -p {random.randrange(1, 99)}",
            f"-D {service}",
            *[f"-a {service} {real} -g -w {random.randrange(9)}"] * 3,
            *[f"-e {service} {real} -g -w {random.randrange(99)}"] * 3,
            *[f"-d {service} {real}"] * 2,
        ]
    )


@contextlib.contextmanager
def another_program(random: Random) -> Iterator[Callable[[], int]]:
    """``ipvsadm``, which changes the table all the while; yields what tells how many bytes of its
    lines it has read.
    """
    lines = "".join(f"{meddling(random)}\n" for _ in range(20_000))
    with tempfile.TemporaryFile("w+") as rules:
        # More than it can read in a minute.
        for _ in range(30):
            rules.write(lines)
        rules.seek(0)
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(["ipvsadm", "-R"], stdin=rules, **silent)
        try:
            yield lambda: os.lseek(rules.fileno(), 0, os.SEEK_CUR)
            assert process.poll() is None
        finally:
            process.kill()
            process.wait()


def give_way(patch: pytest.MonkeyPatch, probability: float) -> None:
    """Let others go on now and then when the kernel has answered: on one processor an apply would
    hardly ever be interrupted.
    """
    random = Random(SEED)
    receive = ipvs.Client._receive

    def received(client: ipvs.Client) -> bytes:
        if random.random() < probability:
            time.sleep(0.0001)
        return receive(client)

    patch.setattr(ipvs.Client, "_receive", received)


def test_another_program_writes_during_a_thousand_applies_and_nothing_is_left_unsaid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    give_way(monkeypatch, 0.1)
    disturbed = unfinished = 0
    with another_program(Random(SEED)) as bytes_read:
        for turn in range(1000):
            desired = (FIRST, SECOND)[turn % 2]
            outcome = ipvs.apply(desired)
            # What was read at the end differs from what was asked for by what is told as left, and
            # by nothing else.
            assert told(plan.plan(outcome.table, desired)) == told(outcome.left)
            unfinished += bool(outcome.left)
            disturbed += outcome.ops != plan.plan((SECOND, FIRST)[turn % 2], desired)
        assert bytes_read() > 50_000
    assert disturbed > 100, f"{disturbed} of 1000 met the other program, {unfinished} gave up"
    outcome = ipvs.apply(SECOND, purge=True)
    assert (outcome.table, outcome.left) == (SECOND, ())
    assert rules() == SECOND_AS_IPVSADM_SAYS_IT
    assert ipvs.apply(SECOND, purge=True).ops == ()


class Meddler:
    """Another program that strikes at points of an apply which a seed chooses, but no more once the
    last reading has begun: so what it did must be told.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.random = Random(SEED)
        self.active = False
        self.struck: list[str] = []
        self.sent: set[VirtualServerKey] = set()
        receive, send = ipvs.Client._receive, ipvs.Client.send

        def received(client: ipvs.Client) -> bytes:
            data = receive(client)
            self.strike(0.2)
            return data

        def sent(client: ipvs.Client, ops: tuple[plan.Op, ...]) -> dict[int, int]:
            self.sent |= {op.virtual_server for op in ops}
            self.active = True
            self.strike(0.3)
            self.active = False
            failed = send(client, ops)
            self.active = True
            self.strike(0.3)
            self.active = False
            return failed

        patch.setattr(ipvs.Client, "_receive", received)
        patch.setattr(ipvs.Client, "send", sent)

    def strike(self, probability: float) -> None:
        if self.active and self.random.random() < probability:
            self.struck.append(meddling(self.random))
            ipvsadm(self.struck[-1], check=False)


def test_what_another_program_did_before_the_last_reading_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meddler = Meddler(monkeypatch)
    for turn in range(150):
        desired = (FIRST, SECOND)[turn % 2]
        meddler.sent, meddler.struck, meddler.active = set(), [], True
        outcome = ipvs.apply(desired)
        meddler.active = False
        truth = ipvs.read().table
        for of in meddler.sent:
            assert outcome.table.get(of) == truth.get(of), meddler.struck
        missing = plan.plan(truth, desired)
        assert told(op for op in missing if op.virtual_server in meddler.sent) == told(outcome.left)


def test_an_edit_under_another_programs_hands_tells_what_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meddler = Meddler(monkeypatch)

    def drained(server: VirtualServer | None) -> VirtualServer:
        server = server or virtual_server(WEB)
        return replace(
            server, real_servers=tuple(replace(real, weight=0) for real in server.real_servers)
        )

    for _ in range(100):
        ipvs.apply(FIRST, purge=True)
        meddler.sent, meddler.struck, meddler.active = set(), [], True
        outcome = ipvs.edit(key(WEB), drained)
        meddler.active = False
        if meddler.sent:
            truth = ipvs.read([key(WEB)]).table
            assert outcome.table == truth, meddler.struck


# --------------------------------------------------------------------------------------------------
# Two of ours


def take_turns(own: Table, other: Table, turns: int) -> None:
    """Apply a table again and again while another does the same with another one. Each of both
    finds one of the two tables whole, or its own.
    """
    expected = [told(plan.plan(before, own, purge=True)) for before in ({}, own, other)]
    for _ in range(turns):
        outcome = ipvs.apply(own, purge=True)
        assert (outcome.table, outcome.left) == (own, ())
        assert told(outcome.ops) in expected


def test_two_processes_take_turns_and_one_of_both_tables_remains() -> None:
    writers = [
        children.start(lambda: take_turns(FIRST, SECOND, 100)),
        children.start(lambda: take_turns(SECOND, FIRST, 100)),
    ]
    assert [children.wait(writer) for writer in writers] == [0, 0]
    assert ipvs.read().table in (FIRST, SECOND)


def test_threads_take_turns_and_one_of_both_tables_remains() -> None:
    with ThreadPoolExecutor(4) as pool:
        turns = [
            pool.submit(take_turns, own, other, 40)
            for own, other in ((FIRST, SECOND), (SECOND, FIRST)) * 2
        ]
    for turn in turns:
        turn.result()
    assert ipvs.read().table in (FIRST, SECOND)


# --------------------------------------------------------------------------------------------------
# Killed


def large(weight: int, scheduler: str, first: int) -> Table:
    """Thirty virtual servers of forty real servers, of which most have another one's weight."""
    base = ipaddress.ip_address("10.20.0.0") + first
    reals = [real_server(f"{base + number}:80", weight + number) for number in range(40)]
    return table(
        *(
            virtual_server(f"tcp 10.10.10.{number}:80", *reals, scheduler=scheduler)
            for number in range(10 + first, 40 + first)
        )
    )


PAIRS = {
    "a small table": (FIRST, SECOND),
    "a large table": (large(1, "rr", 0), large(2, "wlc", 3)),
}


def assert_an_apply_completes(desired: Table) -> None:
    """The lock is free, and one apply makes the table."""
    with locking.exclusive(ipvs.LOCK, wait=False) as free:
        assert free
    outcome = ipvs.apply(desired, purge=True)
    assert (outcome.table, outcome.left) == (desired, ())
    assert ipvs.read().table == desired


@pytest.mark.parametrize("tables", PAIRS.values(), ids=PAIRS.keys())
def test_an_apply_that_is_killed_at_any_time_is_completed_by_the_next(
    tables: tuple[Table, Table],
) -> None:
    random = Random(SEED)
    ipvs.apply(tables[0])
    began = time.perf_counter()
    ipvs.apply(tables[1], purge=True)
    seconds = time.perf_counter() - began
    endings = set()
    for turn in range(40):
        desired = tables[turn % 2]
        child = children.start(lambda desired=desired: ipvs.apply(desired, purge=True))
        time.sleep(random.uniform(0, 1.5 * seconds))
        endings.add(children.kill(child))
        assert_an_apply_completes(desired)
    assert -signal.SIGKILL in endings


def dies_at(call: int) -> Callable[[], object]:
    """Let this process die before its socket's call of that number, with small batches."""
    calls = iter(range(call))

    def counted(method: Callable[..., bytes | None]) -> Callable[..., bytes | None]:
        def counting(*arguments: object) -> bytes | None:
            if next(calls, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return method(*arguments)

        return counting

    class Socket(ipvs.socket.socket):
        sendall = counted(ipvs.socket.socket.sendall)
        recv = counted(ipvs.socket.socket.recv)

    ipvs.socket.socket = Socket  # type: ignore[misc]
    ipvs.BATCH_BYTES = 300
    return ipvs.apply


def test_an_apply_that_is_killed_at_any_point_is_completed_by_the_next() -> None:
    ipvs.apply(FIRST, purge=True)
    halfway = []
    for call in range(1000):
        child = children.start(lambda call=call: dies_at(call)(SECOND, purge=True))
        killed = children.wait(child) == -signal.SIGKILL
        found = ipvs.read().table
        halfway.append(found not in (FIRST, SECOND))
        assert_an_apply_completes(SECOND if call % 2 else FIRST)
        assert_an_apply_completes(FIRST)
        if not killed:
            break
    assert found == SECOND
    assert sum(halfway) > 5


# --------------------------------------------------------------------------------------------------
# Torn

MANY = [ipaddress.ip_address("10.20.0.0") + number for number in range(2000)]
# These are not set, but deleted and added anew, which moves all others in the kernel's list.
MOVED = frozenset(range(7, 2000, 400))


def rewritten(weight: int) -> list[plan.Op]:
    """The operations from one generation of 2,000 real servers to the next."""
    before = virtual_server(WEB, *(real_server(f"{address}:80", weight) for address in MANY))
    after = virtual_server(WEB, *(real_server(f"{address}:80", weight + 1) for address in MANY))
    ops = []
    for number, op in enumerate(plan.plan(table(before), table(after))):
        if number in MOVED:
            ops.append(op._replace(action=plan.Action.DELETE_REAL_SERVER, now=b""))
            ops.append(op._replace(action=plan.Action.ADD_REAL_SERVER, was=b""))
        else:
            ops.append(op)
    return ops


def was_true(found: Table) -> bool:
    """Whether a table is one that the writer left at some moment: up to some real server they have
    the newest weight, the others that before it, and between both one may be missing that moves.
    """
    held = {real.key.address: real.weight for real in found[key(WEB)].real_servers}
    weights = [held.get(address) for address in MANY]
    newest = max(held.values())
    at = next((at for at, weight in enumerate(weights) if weight != newest), len(weights))
    if at in MOVED and weights[at] is None:
        at += 1
    return all(weight == newest - 1 for weight in weights[at:])


def test_a_long_list_that_was_read_while_it_changed_is_told_as_it_was_or_as_doubtful(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ipvs.apply(table(virtual_server(WEB, *(real_server(f"{at}:80", 1) for at in MANY))))

    def write() -> None:
        random = Random(SEED)
        for weight in range(1, 400):
            with ipvs.Client() as kernel:
                kernel.send(rewritten(weight))
            time.sleep(random.uniform(0, 0.1))

    give_way(monkeypatch, 1)
    monkeypatch.setattr(ipvs, "BATCH_BYTES", 8000)

    child = children.start(write)
    torn = sure = doubtful = 0
    try:
        end = time.monotonic() + 5
        while time.monotonic() < end:
            snapshot = ipvs.read()
            doubtful += not snapshot.settled
            if snapshot.settled:
                sure += 1
                assert was_true(snapshot.table)
                assert len(snapshot.connections) == len(snapshot.table[key(WEB)].real_servers)
            with ipvs.client() as kernel:
                torn += not was_true(Table(kernel.packed()))
    finally:
        children.kill(child)
    assert sure and torn, f"{sure} sure, {doubtful} doubtful; of others {torn} were torn"
