"""The lab on a kernel that has IPVS itself: here, that of the lab which runs this."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.lab.remains import OuterProcess
from tests.lab.waiting import until

ENDINGS = {
    "its command has ended": (None, 7),
    "SIGKILL": (signal.SIGKILL, -signal.SIGKILL),
}


@pytest.mark.parametrize(("number", "status"), ENDINGS.values(), ids=ENDINGS)
def test_a_native_lab_has_hosts_and_leaves_nothing_after(
    number: signal.Signals | None, status: int, tmp_path: Path
) -> None:
    with OuterProcess(tmp_path, seconds=600 if number else 2, mode="native") as outer:
        holdings = outer.holdings()
        assert holdings.running("sleep 600")
        assert {name.partition(":")[0] for name in holdings.namespaces} == {
            *("net", "mnt", "pid", "uts", "ipc")
        }
        assert holdings.left() != []
        if number:
            outer.send(number)
        assert outer.wait() == status
        until(lambda: holdings.left() == [], f"nothing to be left of {holdings.left()}", seconds=10)
    assert list(tmp_path.iterdir()) == []
