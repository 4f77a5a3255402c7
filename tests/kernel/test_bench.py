"""The benchmark's jobs, on a table so small that they take no time: each of them still works."""

from __future__ import annotations

import pytest

from tests.bench import asking, configuring, peers, suite, watching, worker
from tests.bench.big import Kept
from tests.bench.healthy import SIDES, Asked
from tests.bench.realserver import Load
from tests.bench.tables import Size

SIZE = Size(2, 100)
LOAD = Load(2, 2)
KEPT = Kept(2, 2, 2)
STEPS = {
    "create": {"create"},
    "acknowledge": {"create"},
    "change": {"list", "read", "nothing", "weights", "replace"},
    "memory": {"apply", "dict and apply"},
    "floor": {
        "create",
        "dump",
        "create and dump",
        "weights",
        "replace",
        "dump what was touched",
    },
    "ipvsadm": {"create", "list", "weights", "replace"},
    "pyroute2": {"create", "list", "weights"},
}
REAL_SERVER_STEPS = {
    "local": {"queued", "back"},
    "reactor": {"queued"},
    "many": {"create", "nothing"},
    "ip -batch": {"create", "nothing"},
    "one ip each": {"create", "nothing"},
    "idle": {"look", "call", "both"},
}

ASKED = Asked(4, 100, 2)
ASKED_STEPS = {
    "cost": {"each", "share", "kept up", "memory", "calls"},
    "both": {"share", "kept up"},
    "one dies": {"took"},
    "half die": {"took"},
}
KEPT_STEPS = {"library": {"render", "check"}, "salt": {"plan"}}


@pytest.fixture(scope="module", autouse=True)
def _floor() -> None:
    peers.compile_floor()


def test_there_are_no_other_jobs() -> None:
    assert STEPS.keys() == worker.JOBS.keys()
    assert REAL_SERVER_STEPS.keys() == watching.JOBS.keys()
    assert KEPT_STEPS.keys() == configuring.JOBS.keys()
    assert ASKED_STEPS.keys() == asking.JOBS.keys()
    assert set(SIDES) == asking.SIDES.keys()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("job", ASKED_STEPS)
def test_a_job_on_real_servers_that_are_asked_tells_of_each_step(job: str, side: str) -> None:
    assert suite.run_job(f"{job}, {side}", ASKED).keys() == ASKED_STEPS[job]


@pytest.mark.parametrize("job", STEPS)
def test_a_job_finds_the_kernel_as_it_should_be_and_tells_of_each_step(job: str) -> None:
    steps = suite.run_job(job, SIZE)
    assert steps.keys() == STEPS[job]
    assert all(isinstance(value, float) for value in steps.values())


@pytest.mark.parametrize("job", REAL_SERVER_STEPS)
def test_a_job_of_a_real_server_finds_its_vips_where_they_should_be(job: str) -> None:
    steps = suite.run_job(job, LOAD)
    assert steps.keys() == REAL_SERVER_STEPS[job]
    for value in steps.values():
        times = value if isinstance(value, list) else [value]
        assert all(isinstance(time, float) and time > 0 for time in times)
    if job in ("local", "reactor"):
        assert [len(steps[step]) for step in steps] == [LOAD.times] * len(steps)


@pytest.mark.parametrize("job", KEPT_STEPS)
def test_a_job_of_a_configuration_finds_keepalived_content_with_it(job: str) -> None:
    steps = suite.run_job(job, KEPT)
    assert steps.keys() == KEPT_STEPS[job]
    assert all(isinstance(time, float) and time > 0 for time in steps.values())
