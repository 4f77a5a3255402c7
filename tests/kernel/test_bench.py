"""The benchmark's jobs, on a table so small that they take no time: each of them still works."""

from __future__ import annotations

import pytest

from tests.bench import peers, suite, watching, worker
from tests.bench.realserver import Load
from tests.bench.tables import Size

SIZE = Size(2, 100)
LOAD = Load(2, 2)
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


@pytest.fixture(scope="module", autouse=True)
def _floor() -> None:
    peers.compile_floor()


def test_there_are_no_other_jobs() -> None:
    assert STEPS.keys() == worker.JOBS.keys()
    assert REAL_SERVER_STEPS.keys() == watching.JOBS.keys()


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
