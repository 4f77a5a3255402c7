"""Laws of apply, on the real kernel: any table becomes any other, whatever else is there, and no
step on the way serves fewer clients than before and after.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from saltext.lvs import ipvs, plan
from saltext.lvs.model import VirtualServer, VirtualServerKey
from saltext.lvs.table import Table

from tests.kernel.commands import ipvsadm
from tests.unit.tables import tables

pytestmark = pytest.mark.usefixtures("netns")

Keys = Collection[VirtualServerKey]
on_the_kernel = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def without(current: Mapping[VirtualServerKey, VirtualServer], keys: Keys) -> Table:
    return Table.of(server for key, server in current.items() if key not in keys)


def some_of(*known: Table) -> st.SearchStrategy[frozenset[VirtualServerKey]]:
    """Some virtual servers' keys, of these tables and others."""
    keys = sorted({key for held in known for key in held}, key=VirtualServerKey.sort_key)
    return st.frozensets(st.sampled_from(keys)) if keys else st.just(frozenset())


def expected(
    before: Table, desired: Table, purge: bool, leave: Keys, absent: Keys
) -> dict[VirtualServerKey, VirtualServer]:
    """The table that an apply has to make, in the words of its documentation."""
    gone = set(before) - set(desired) if purge else set(absent) - set(desired)
    after = {**without(before, gone), **desired}
    for key in leave:
        after.pop(key, None)
        if key in before:
            after[key] = before[key]
    return after


def told(ops: Iterable[plan.Op]) -> list[str]:
    """Operations as sentences. The kernel tells its virtual servers in an order of its own, and so
    those on different ones may come in any order.
    """
    return sorted(f"{op}: {op.before()} -> {op.after()}" for op in ops)


def start_with(before: Table) -> None:
    """Make the kernel hold a table, whatever it held."""
    assert ipvs.apply(before, purge=True).table == before


@on_the_kernel
@given(tables, tables, st.data())
def test_an_apply_makes_what_it_says_of_any_table(
    before: Table, desired: Table, data: st.DataObject
) -> None:
    leave, absent = data.draw(some_of(before, desired)), data.draw(some_of(before, desired))
    purge, verify = data.draw(st.booleans()), data.draw(st.booleans())
    wanted = expected(before, desired, purge, leave, absent)
    start_with(before)
    assert ipvs.read().table == before
    planned = plan.plan(before, desired, purge, leave, absent)
    outcome = ipvs.apply(desired, purge, leave, absent, verify)
    assert (told(outcome.ops), outcome.left) == (told(planned), ())
    if verify:
        assert outcome.table == wanted
    assert ipvs.read().table == wanted
    assert ipvs.read(wanted.keys()).table == wanted
    assert plan.plan(ipvs.read().table, desired, purge, leave, absent) == ()
    assert ipvs.apply(desired, purge, leave, absent).ops == ()


@on_the_kernel
@given(tables, tables, st.data())
def test_an_edit_makes_any_virtual_server_any_other(
    before: Table, desired: Table, data: st.DataObject
) -> None:
    keys = sorted({*before, *desired}, key=VirtualServerKey.sort_key)
    assume(keys)
    key = data.draw(st.sampled_from(keys))
    start_with(before)
    outcome = ipvs.edit(key, lambda _: desired.get(key))
    wanted = {key: desired[key]} if key in desired else {}
    assert (outcome.table, outcome.left) == (wanted, ())
    assert ipvs.read().table == {**without(before, [key]), **wanted}


def serving(server: VirtualServer | None) -> int:
    """How many real servers take new connections."""
    return sum(1 for real in server.real_servers if real.weight) if server else 0


@settings(on_the_kernel, max_examples=40)
@given(tables, tables, st.booleans())
def test_no_step_on_the_kernel_serves_fewer_than_the_poorer_of_both_tables(
    before: Table, desired: Table, purge: bool
) -> None:
    start_with(before)
    least = {
        key: min(serving(before[key]), serving(desired[key])) for key in before if key in desired
    }
    stays = set(before) & set(desired) if purge else set(before)
    with ipvs.client() as kernel:
        for op in plan.plan(before, desired, purge):
            assert kernel.send([op]) == {}
            now = ipvs.read().table
            assert stays <= set(now)
            assert {key: serving(now[key]) for key in least if serving(now[key]) < least[key]} == {}
    assert ipvs.read().table == expected(before, desired, purge, (), ())


@settings(on_the_kernel, max_examples=30)
@given(tables, tables)
def test_what_we_save_and_ipvsadm_clears_is_restored_whole(first: Table, second: Table) -> None:
    start_with(first)
    saved = ipvs.read().table.as_data()
    ipvsadm("-C")
    start_with(second)
    assert ipvs.apply(Table.from_data(saved), purge=True).table == first
