"""The benchmark's jobs, on a table so small that they take no time: each of them still works."""

from __future__ import annotations

import pytest

from tests.bench import peers, suite, worker
from tests.bench.tables import Size

SIZE = Size(2, 100)
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


@pytest.fixture(scope="module", autouse=True)
def _floor() -> None:
    peers.compile_floor()


def test_there_are_no_other_jobs() -> None:
    assert STEPS.keys() == worker.JOBS.keys()


@pytest.mark.parametrize("job", STEPS)
def test_a_job_finds_the_kernel_as_it_should_be_and_tells_of_each_step(job: str) -> None:
    steps = suite.run_job(job, SIZE)
    assert steps.keys() == STEPS[job]
    assert all(isinstance(value, float) for value in steps.values())
