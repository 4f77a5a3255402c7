"""Wherever Salt may call it from: a running event loop, threads, forked jobs. One table, one lock,
and nothing that stays open.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from saltext.lvs import ipvs, locking
from saltext.lvs.errors import KernelError
from saltext.lvs.model import VirtualServer
from saltext.lvs.namespaces import within
from saltext.lvs.table import Table

from tests.functional.conftest import Minion, minion
from tests.kernel import children
from tests.lab.namespaces import named_network
from tests.unit.tables import key, real_server, table, virtual_server

pytestmark = pytest.mark.usefixtures("netns")
__all__ = ["minion"]

WEB = "tcp 10.10.10.10:80"
RS1, RS2 = real_server("10.10.10.41:80", 50), real_server("10.10.10.42:80", 50)
SEED = table(virtual_server(WEB, RS1, RS2, persistence=5))
WORKERS = 8
ROUNDS = 12


def own(number: int, weight: int) -> VirtualServer:
    """The virtual server that one worker has to itself."""
    return virtual_server(f"tcp 10.10.10.{100 + number}:80", replace(RS1, weight=weight), RS2)


def all_of(weight: int) -> Table:
    return table(*(own(number, weight) for number in range(WORKERS)))


def work(number: int) -> None:
    """Make one's own virtual server, change it, and see it as it was left each time."""
    for weight in range(1, ROUNDS + 1):
        server = own(number, weight)
        if weight % 2:
            assert ipvs.apply(table(server)).left == ()
        else:
            assert ipvs.edit(server.key, lambda _, server=server: server).left == ()
        assert ipvs.read([server.key]).table == table(server)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# --------------------------------------------------------------------------------------------------
# Loops and threads


def test_a_running_event_loop_is_no_hindrance() -> None:
    async def called_synchronously() -> None:
        work(0)

    asyncio.run(called_synchronously())
    assert ipvs.read().table == table(own(0, ROUNDS))


def test_a_running_event_loop_and_its_threads_work_at_once() -> None:
    async def all_at_once() -> None:
        others = [asyncio.to_thread(work, number) for number in range(1, WORKERS)]
        gathered = asyncio.gather(*others)
        await asyncio.sleep(0)
        work(0)
        await gathered

    asyncio.run(all_at_once())
    assert ipvs.read().table == all_of(ROUNDS)


def test_threads_do_not_get_in_each_others_way() -> None:
    with ThreadPoolExecutor(WORKERS) as pool:
        assert list(pool.map(work, range(WORKERS))) == [None] * WORKERS
    assert ipvs.read().table == all_of(ROUNDS)


# --------------------------------------------------------------------------------------------------
# Forks


def test_forked_children_do_not_get_in_each_others_way() -> None:
    jobs = [children.start(lambda number=number: work(number)) for number in range(WORKERS)]
    assert [children.wait(job) for job in jobs] == [0] * WORKERS
    assert ipvs.read().table == all_of(ROUNDS)


def test_children_that_are_forked_while_threads_apply_do_the_same() -> None:
    with ThreadPoolExecutor(WORKERS // 2) as pool:
        threads = [pool.submit(work, number) for number in range(WORKERS // 2)]
        jobs = [
            children.start(lambda number=number: work(number))
            for number in range(WORKERS // 2, WORKERS)
        ]
        for thread in threads:
            thread.result()
    assert [children.wait(job) for job in jobs] == [0] * (WORKERS // 2)
    assert ipvs.read().table == all_of(ROUNDS)


def test_a_child_that_is_forked_while_a_thread_has_the_lock_waits_for_it_and_keeps_none() -> None:
    taken, give_back = threading.Event(), threading.Event()

    def hold() -> None:
        with locking.exclusive(ipvs.LOCK):
            taken.set()
            give_back.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(10)
    lives_on = children.start(lambda: time.sleep(30))
    applies = children.start(lambda: ipvs.apply(SEED))
    time.sleep(0.2)
    assert ipvs.read().table == {}
    give_back.set()
    holder.join()
    try:
        assert children.wait(applies) == 0
        assert ipvs.read().table == SEED
        assert ipvs.apply(SEED).ops == ()
    finally:
        children.kill(lives_on)


def test_jobs_that_are_forked_from_a_running_event_loop_work() -> None:
    fork = multiprocessing.get_context("fork")

    async def jobs() -> list[int | None]:
        processes = [fork.Process(target=work, args=(number,)) for number in range(3)]
        for process in processes:
            process.start()
        work(3)
        for process in processes:
            await asyncio.to_thread(process.join, 30)
        return [process.exitcode for process in processes]

    assert asyncio.run(jobs()) == [0, 0, 0]
    assert ipvs.read().table == table(*(own(number, ROUNDS) for number in range(4)))


# --------------------------------------------------------------------------------------------------
# What stays


def test_two_hundred_rounds_leave_nothing_open() -> None:
    refused = table(virtual_server("tcp 10.10.10.11:80", scheduler="nosuch"))

    def everything(turn: int) -> None:
        ipvs.apply(SEED)
        ipvs.apply({}, absent=[key(WEB)], verify=bool(turn % 2))
        ipvs.edit(key(WEB), lambda _: SEED[key(WEB)])
        with pytest.raises(KernelError):
            ipvs.apply(refused)
        with pytest.raises(ZeroDivisionError):
            ipvs.edit(key(WEB), lambda _: 1 // 0)
        assert ipvs.read().table == SEED
        assert within("elsewhere", lambda: ipvs.apply(SEED)).table == SEED

    with named_network("elsewhere"):
        everything(0)
        descriptors, threads = open_descriptors(), threading.active_count()
        for turn in range(200):
            everything(turn)
        assert (open_descriptors(), threading.active_count()) == (descriptors, threads)


# --------------------------------------------------------------------------------------------------
# Salt


def use_salt(director: Minion, number: int) -> None:
    """What a job does, through Salt's loader."""
    name = str(own(number, 1).key)
    for weight in range(2, 5):
        told = director.call("ipvs.apply", table=table(own(number, weight)).as_data())
        assert told["left"] == []
        director.call("ipvs.set_weight", name, "10.10.10.41:80", weight + 10)
        held = director.call("ipvs.get", name)["real_servers"]["10.10.10.41:80"]["weight"]
        assert held == weight + 10


def test_jobs_are_threads_where_multiprocessing_is_off(minion: Callable[..., Any]) -> None:
    director = minion("lb1")
    assert director.call("ipvs.apply")["left"] == []

    async def a_minion() -> None:
        jobs = [asyncio.to_thread(use_salt, director, number) for number in range(4)]
        gathered = asyncio.gather(*jobs)
        await asyncio.sleep(0)
        # A beacon runs on the loop itself.
        assert WEB in director.call("ipvs.list")
        await gathered

    asyncio.run(a_minion())
    assert ipvs.read().table == {**SEED, **table(*(own(number, 14) for number in range(4)))}


def test_a_state_runs_in_a_thread_of_a_running_event_loop(minion: Callable[..., Any]) -> None:
    director = minion("lb1")

    async def a_minion() -> dict[str, Any]:
        return await asyncio.to_thread(director.state, "ipvs.managed", "table")

    assert asyncio.run(a_minion())["result"] is True
    assert ipvs.read().table == SEED
    assert director.state("ipvs.managed", "table")["changes"] == {}
