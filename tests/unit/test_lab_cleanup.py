"""However a lab ends, nothing of it is left: processes, mounts, namespaces, files.

This is about the machine around the lab, and so runs outside it, as root.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.lab import cache, machine
from tests.lab.remains import Holdings, OuterProcess
from tests.lab.waiting import until


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.fail("the lab makes namespaces and mounts: these tests must run as root (try sudo)")


@pytest.fixture(scope="module", autouse=True)
def _ready() -> None:
    """Set up in advance, so that no test waits for a download."""
    if os.geteuid() == 0:
        machine.prepare()


SIGNALS = {
    "Ctrl-C": (signal.SIGINT, 130),
    "SIGTERM": (signal.SIGTERM, 143),
    "SIGKILL, which leaves no time to clear up": (signal.SIGKILL, -signal.SIGKILL),
}


@pytest.mark.parametrize(("number", "status"), SIGNALS.values(), ids=SIGNALS)
def test_nothing_is_left_with_hosts_up_after(
    number: signal.Signals, status: int, tmp_path: Path
) -> None:
    with OuterProcess(tmp_path) as outer:
        holdings = outer.holdings()
        assert_that_it_runs(outer.number, holdings)
        assert {name.partition(":")[0] for name in holdings.namespaces} >= {"mnt", "pid"}
        assert holdings.left() != []
        outer.send(number)
        assert outer.wait() == status
        until(lambda: holdings.left() == [], f"nothing to be left of {holdings.left()}", seconds=10)
    assert files_left(tmp_path) == []


def test_nothing_is_left_after_the_command_has_ended(tmp_path: Path) -> None:
    with OuterProcess(tmp_path, seconds=2) as outer:
        holdings = outer.holdings()
        assert holdings.left() != []
        # The command's own.
        assert outer.wait() == 7
        assert holdings.left() == []
    assert files_left(tmp_path) == []


@pytest.mark.skipif(machine.mode() == "native", reason="this machine's own kernel has IPVS")
def test_nothing_is_left_after_the_labs_kernel_has_crashed(tmp_path: Path) -> None:
    with OuterProcess(tmp_path) as outer:
        holdings = outer.holdings()
        kernel, *_ = holdings.running(f"umid=lab-{outer.number} ")
        os.kill(kernel.number, signal.SIGKILL)
        assert outer.wait() == 70
        until(lambda: holdings.left() == [], f"nothing to be left of {holdings.left()}", seconds=10)
    assert files_left(tmp_path) == []


def assert_that_it_runs(number: int, holdings: Holdings) -> None:
    """Make sure that we look at the lab, and not at a part of it."""
    if machine.mode() == "uml":
        assert holdings.running(f"/usr/bin/linux.uml umid=lab-{number} ")
        assert len(holdings.running("uml-userspace")) > 10
    else:
        assert holdings.running("sleep 600")


def files_left(scratch: Path) -> list[Path]:
    """Temporary files, and those that the lab's kernel has in its folder while it runs."""
    kernel = cache.place("kernel")
    return [
        path for folder in (scratch, kernel / "tmp", kernel / "host") for path in folder.glob("*")
    ]
