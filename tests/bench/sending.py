"""Does one job in a process of its own: ``python -m tests.bench.sending JOB MAILS`` prints seconds
and megabytes as JSON. The relay is the lab's, on this machine.
"""

from __future__ import annotations

import json
import os
import smtplib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from saltext.lvs import model, posting, senders
from saltext.lvs.incidents import (
    Incident,
    Kind,
    Letter,
    Part,
    Severity,
    Standing,
    Subject,
    Told,
    Trouble,
)
from saltext.lvs.journal import Journal
from saltext.lvs.outbox import Parcel

CHECKOUT = Path(__file__).resolve().parents[2]
PILLAR = CHECKOUT / "pillar.example" / "production"
RELAY = CHECKOUT / "tests" / "lab" / "smtpd.py"
AT = 1_800_000_000.0
MEGABYTE = 1 << 20
PATIENCE_SECONDS = 900


def main(job: str, mails: str) -> None:
    """Do one job and print what it took."""
    with tempfile.TemporaryDirectory() as folder, _relay(Path(folder)):
        print(json.dumps(JOBS[job](int(mails), Path(folder))))


def outbox(count: int, folder: Path) -> dict[str, float]:
    """Send what waits in a book."""
    book = Journal(str(folder / "book" / "incidents.sqlite"))
    parcel = _parcel()
    for _ in range(count // 1000):
        with book.writing() as pen:
            for _ in range(1000):
                pen.queue(parcel)
    sender = senders.Sender(book, posting.ways(posting.read(None), lambda *_: None), time.time)
    with _measured_memory() as grown:
        took = _until_taken(count, folder, sender.start)
    sender.stop()
    return {"seconds": took, "grown": grown[0]}


def smtplib_alone(count: int, folder: Path) -> dict[str, float]:
    """Send the same mail as often, and note nothing."""
    parcel = _parcel()
    sender, receivers = parcel.address["sender"], parcel.address["recipients"]

    def send() -> None:
        for _ in range(count):
            with smtplib.SMTP("localhost", 25) as relay:
                relay.sendmail(sender, receivers, parcel.body)

    return {"seconds": _until_taken(count, folder, threading.Thread(target=send).start)}


JOBS: dict[str, Callable[[int, Path], dict[str, float]]] = {
    "outbox": outbox,
    "smtplib": smtplib_alone,
}


def _parcel() -> Parcel:
    pillar = {}
    for path in PILLAR.glob("*.sls"):
        pillar.update(yaml.safe_load(path.read_text()))
    trouble = Trouble(
        Subject("servers", "rs1:80 of web"),
        Severity.WARNING,
        "rs1:80 OUT of web",
        "rs1:80 back in web",
        "connection refused",
        "web",
        ("lb1",),
    )
    incident = Incident(
        "20270115-080000-00000000",
        "prod",
        "servers",
        AT,
        (Part(trouble, AT),),
        told=(Told(Kind.OPENED, AT, Severity.WARNING),),
    )
    letter = Letter(Kind.OPENED, incident, AT, 1, (Standing("web", 3, 4),))
    cluster = model.from_pillar(pillar)
    parcels = posting.parcels(letter, cluster, posting.read(None), "master")
    return next(parcel for parcel in parcels if parcel.way == "mail")


@contextmanager
def _relay(folder: Path) -> Iterator[None]:
    program = [sys.executable, str(RELAY), str(folder / "mail")]
    with subprocess.Popen(program) as relay:
        try:
            while not _answers():
                time.sleep(0.1)
            yield
        finally:
            relay.kill()


def _answers() -> bool:
    try:
        smtplib.SMTP("localhost", 25, timeout=5).close()
    except OSError:
        return False
    return True


def _until_taken(count: int, folder: Path, start: Callable[[], None]) -> float:
    """The seconds from the start until the relay has taken so many mails."""
    began = time.monotonic()
    start()
    last = folder / "mail" / f"{count:04}.eml"
    while not last.exists():
        if time.monotonic() - began > PATIENCE_SECONDS:
            raise TimeoutError(f"{count} mails were not sent")
        time.sleep(0.02)
    return time.monotonic() - began


@contextmanager
def _measured_memory() -> Iterator[list[float]]:
    """By how many megabytes this process has grown at most, from half a second on, when all its
    modules are in.
    """
    grown, over = [0.0], threading.Event()

    def watch() -> None:
        over.wait(0.5)
        first = _resident()
        while not over.wait(0.2):
            grown[0] = max(grown[0], (_resident() - first) / MEGABYTE)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield grown
    finally:
        over.set()
        watcher.join()


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main(*sys.argv[1:])
