"""Salt's event buses: what is on the master's, and events that somebody puts on a minion's.

``Bus(host)`` and ``fire(host, events)`` are for tests. In the host this file runs by itself, with
Salt's Python: ``python bus.py listen``, ``python bus.py fire``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.lab.host import Host

READY = "ready"


@dataclass(frozen=True)
class Event:
    """One event of the master's bus. ``at`` is in seconds of ``time.monotonic()``."""

    at: float
    tag: str
    data: Any


class Bus:
    """Collects what is on the master's bus for the time of a ``with`` block.

    It ends with the master's own process: a restart takes a new one.
    """

    def __init__(self, master: Host) -> None:
        self._master = master
        self.events: list[Event] = []

    def __enter__(self) -> Bus:
        self._process = self._master.popen(
            _command(self._master, "listen"), stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == READY
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait()

    def _collect(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            self.events.append(Event(time.monotonic(), event["tag"], event["data"]))

    def jobs(self, function: str = "") -> list[dict[str, Any]]:
        """The jobs that were published, or those of one function."""
        published = (e.data for e in self.events if _is_job(e.tag))
        return [job for job in published if function in ("", job["fun"])]

    def returns(self, function: str) -> dict[str, Any]:
        """What minions have returned of a function's jobs, by their ids."""
        return {
            event.data["id"]: event.data["return"]
            for event in self.events
            if "/ret/" in event.tag and event.data.get("fun") == function
        }


def _is_job(tag: str) -> bool:
    return tag.startswith("salt/job/") and tag.endswith("/new")


def fire(minion: Host, events: Sequence[tuple[str, Any]], per_second: float = 0) -> None:
    """Have a minion tell its master events, tag and content each, as its beacons do.

    per_second
        So many within a second; 0 for as fast as it can.
    """
    lines = "".join(json.dumps(event) + "\n" for event in events)
    seconds = len(events) / per_second if per_second else 0
    command = _command(minion, "fire", str(per_second))
    minion.run(command, check=True, input=lines, timeout=120 + seconds)


def _command(host: Host, *action: str) -> list[str]:
    program = host.run(["readlink", "-f", "/usr/local/bin/salt-call"], check=True).stdout.strip()
    # Isolated: modules beside this program are not Salt's to import.
    return [str(Path(program).parent / "python"), "-I", str(Path(__file__).resolve()), *action]


# From here on: inside the host.


def _listen() -> None:
    """Print each event of the master's bus as a line of JSON."""
    import salt.config
    import salt.utils.event

    opts = salt.config.master_config("/etc/salt/master")
    with salt.utils.event.get_event("master", opts=opts, listen=True) as bus:
        print(READY, flush=True)
        for event in bus.iter_events(full=True):
            print(json.dumps(event, default=str), flush=True)


def _fire() -> None:
    """Put each line, a list of tag and content, on the minion's bus."""
    import salt.config
    import salt.utils.event

    opts = salt.config.minion_config("/etc/salt/minion")
    per_second = float(sys.argv[2])
    with salt.utils.event.get_event("minion", opts=opts, listen=False) as bus:
        began = time.monotonic()
        for number, line in enumerate(sys.stdin):
            if per_second:
                time.sleep(max(0.0, began + number / per_second - time.monotonic()))
            tag, data = json.loads(line)
            returned = {"tag": tag, "data": data, "beacon_name": "dummy"}
            bus.fire_event({"beacons": [returned]}, "__beacons_return")


if __name__ == "__main__":
    actions: dict[str, Callable[[], None]] = {"listen": _listen, "fire": _fire}
    actions[sys.argv[1]]()
