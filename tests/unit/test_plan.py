"""The operations that turn one IPVS table into another: which, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from saltext.lvs import plan
from saltext.lvs.model import Forward, RealServer, VirtualServer
from saltext.lvs.plan import Op
from saltext.lvs.table import Table

from tests.unit.tables import carried_out, key, real_server, table, tables, virtual_server

WEB = "tcp 10.10.10.10:80"
RS1 = real_server("10.10.10.41:80", 50)
RS2 = real_server("10.10.10.42:80", 50)


def web(*servers: RealServer, **settings: object) -> Table:
    return table(virtual_server(WEB, *servers, **settings))


def drained(server: RealServer) -> RealServer:
    return real_server(str(server.key), 0, server.forward)


CASES = {
    "an empty table is filled, the virtual server first": (
        {},
        web(RS1, RS2),
        [
            f"add virtual server {WEB}",
            f"add real server 10.10.10.41:80 of {WEB}",
            f"add real server 10.10.10.42:80 of {WEB}",
        ],
    ),
    "what is right is left alone": (web(RS1, RS2), web(RS1, RS2), []),
    "a weight is set, the rest is left alone": (
        web(RS1, RS2),
        web(RS1, drained(RS2)),
        [f"change real server 10.10.10.42:80 of {WEB}"],
    ),
    "a real server comes before another goes": (
        web(RS1),
        web(RS2),
        [
            f"add real server 10.10.10.42:80 of {WEB}",
            f"delete real server 10.10.10.41:80 of {WEB}",
        ],
    ),
    "one is raised before another is drained": (
        web(RS1, drained(RS2)),
        web(drained(RS1), RS2),
        [
            f"change real server 10.10.10.42:80 of {WEB}",
            f"change real server 10.10.10.41:80 of {WEB}",
        ],
    ),
    "a scheduler is changed in place": (
        web(RS1),
        web(RS1, scheduler="rr"),
        [f"change virtual server {WEB}"],
    ),
    "a virtual server that nobody names stays": (web(RS1), {}, []),
}


@pytest.mark.parametrize(("current", "desired", "told"), CASES.values(), ids=CASES.keys())
def test_the_plan_is_these_operations_in_this_order(
    current: Table, desired: Table, told: Sequence[str]
) -> None:
    assert [str(op) for op in plan.plan(current, desired)] == told


def test_purge_deletes_what_nobody_names() -> None:
    ops = plan.plan(web(RS1), {}, purge=True)
    assert [str(op) for op in ops] == [f"delete virtual server {WEB}"]


def test_what_another_keeps_is_left_alone_even_by_purge() -> None:
    assert plan.plan(web(RS1), {}, purge=True, leave={key(WEB)}) == ()
    assert plan.plan({}, web(RS1), leave={key(WEB)}) == ()


def test_an_address_of_the_directors_own_is_what_the_kernel_calls_local() -> None:
    local = real_server("10.10.10.41:80", 50, Forward.LOCAL)
    assert plan.plan(web(local), web(RS1)) == ()
    assert len(plan.plan(web(local), web(drained(RS1)))) == 1


def test_changes_name_what_comes_what_goes_and_what_differs() -> None:
    current = web(RS1, RS2, persistence=5)
    desired = web(drained(RS1), real_server("10.10.10.43:80", 7), scheduler="sh")
    assert plan.changes(plan.plan(current, desired)) == {
        f"{WEB} -> 10.10.10.43:80": {"old": None, "new": {"forward": "direct", "weight": 7}},
        f"{WEB} -> 10.10.10.41:80": {"old": {"weight": 50}, "new": {"weight": 0}},
        WEB: {
            "old": {"scheduler": "wlc", "persistence": 5},
            "new": {"scheduler": "sh", "persistence": 0},
        },
        f"{WEB} -> 10.10.10.42:80": {"old": {"forward": "direct", "weight": 50}, "new": None},
    }


TOLD: dict[str, tuple[VirtualServer, dict[str, dict[str, object]]]] = {
    "the kernel's defaults": (
        virtual_server(WEB, real_server("10.10.10.41:80")),
        {"": {"scheduler": "wlc"}, " -> 10.10.10.41:80": {"forward": "direct", "weight": 1}},
    ),
    "each client by itself, with IPv6": (
        virtual_server("tcp [fd00::10]:80", persistence=5),
        {"": {"scheduler": "wlc", "persistence": 5}},
    ),
    "all clients as one": (
        virtual_server(WEB, persistence=5, netmask=0),
        {"": {"scheduler": "wlc", "persistence": 5, "netmask": 0}},
    ),
    "a tunnel of the first kind": (
        virtual_server(WEB, real_server("10.10.10.41:80", 1, Forward.TUNNEL)),
        {"": {"scheduler": "wlc"}, " -> 10.10.10.41:80": {"forward": "tunnel", "weight": 1}},
    ),
}


@pytest.mark.parametrize(("server", "told"), TOLD.values(), ids=TOLD.keys())
def test_what_comes_is_told_without_the_kernels_defaults(
    server: VirtualServer, told: dict[str, dict[str, object]]
) -> None:
    assert plan.changes(plan.plan({}, table(server))) == {
        f"{server.key}{real}": {"old": None, "new": settings} for real, settings in told.items()
    }


def test_a_deleted_virtual_server_is_told_with_its_real_servers() -> None:
    assert plan.changes(plan.plan(web(RS1), {}, purge=True)) == {
        WEB: {"old": {"scheduler": "wlc"}, "new": None},
        f"{WEB} -> 10.10.10.41:80": {"old": {"forward": "direct", "weight": 50}, "new": None},
    }


# --------------------------------------------------------------------------------------------------
# Laws


def serving(server: VirtualServer) -> int:
    """How many real servers take new connections."""
    return sum(1 for real in server.real_servers if real.weight > 0)


@given(tables, tables)
def test_carrying_out_a_purging_plan_gives_the_desired_table(
    current: Table, desired: Table
) -> None:
    assert carried_out(current, plan.plan(current, desired, purge=True)) == desired


@given(tables, tables)
def test_without_purge_the_rest_of_the_table_stays(current: Table, desired: Table) -> None:
    ops = plan.plan(current, desired)
    assert carried_out(current, ops) == {**current, **desired}


@given(tables)
def test_the_plan_for_what_is_there_is_empty(current: Table) -> None:
    assert plan.plan(current, current, purge=True) == ()


@given(tables, tables)
def test_no_step_serves_fewer_than_the_poorer_of_both_tables(
    current: Table, desired: Table
) -> None:
    now = dict(current)
    for op in plan.plan(current, desired):
        now = carried_out(now, [op])
        for of in set(current) & set(desired):
            least = min(serving(current[of]), serving(desired[of]))
            assert serving(now[of]) >= least


@given(tables, tables)
def test_a_plan_that_breaks_off_is_completed_by_the_next(current: Table, desired: Table) -> None:
    ops: Sequence[Op] = plan.plan(current, desired, purge=True)
    for done in range(len(ops) + 1):
        halfway = carried_out(current, ops[:done])
        rest = plan.plan(halfway, desired, purge=True)
        assert carried_out(halfway, rest) == desired


@given(tables, tables)
def test_each_thing_is_changed_once(current: Table, desired: Table) -> None:
    ops = plan.plan(current, desired, purge=True)
    subjects = [(op.service, op.real) for op in ops]
    assert len(subjects) == len(set(subjects))
