"""A director's configuration of keepalived, from the pillar to what runs.

In this order: pipes and files of weights, which keepalived must find; the file, if keepalived has
nothing against it; then, where keepalived runs and has loaded another text, a reload, with a proof
that nothing was lost by it. Each step looks at what is there, so an apply that ended half-way is
completed by the next one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from saltext.lvs import (
    fifos,
    files,
    handover,
    keepalived,
    loading,
    locking,
    origins,
    proving,
    restarts,
    rtnetlink,
    running,
    settings,
    trackfiles,
)
from saltext.lvs.errors import CommandFailed, LvsError, NotAvailable
from saltext.lvs.model import Cluster

# Who applies at the same time waits.
LOCK = f"{locking.FOLDER}/keepalived-config"
# What was loaded from which text, where the two do not compare.
RECORD = f"{locking.FOLDER}/keepalived-loaded"

# After a restart: a backup waits three advertisements and the skew, with room for a slow machine.
SETTLE_ADVERTS = 4
SETTLE_SECONDS = 15.0
_PAUSE_SECONDS = 0.1
_SYNC_DAEMON = "lvs_sync_daemon"
# As keepalived.check tells complaints.
_LINE = re.compile(r"line (\d+) \(")
# keepalived 2.3 complains of a file whose folder an apply would make.
_TRACK_FILE = re.compile(r"(?i)track[_ ]file|realpath")
_WORD = re.compile(r"[^\s'\"(){}:,;]+")


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be applied.

    path
        keepalived's configuration file.

    text
        What is to be in it, with passwords.

    """

    path: str
    text: str
    cluster: Cluster
    pid_file: str = running.PID_FILE
    fifos: tuple[str, ...] = fifos.PATHS
    weights: str = trackfiles.FOLDER
    record: str = RECORD


@dataclass(slots=True)
class Outcome:
    """What an apply would do, or has done.

    changes
        As Salt reports them. ``loaded`` tells what becomes of the running keepalived.

    problems
        What keepalived has against the text, each with its place in the pillar. With any of them
        nothing is replaced and nothing loaded.

    checked
        False if keepalived is not installed, so that nobody has looked.

    restart
        Why a restart is needed for the whole text to be in effect; empty if it is not.

    failures
        What went wrong with keepalived itself, as sentences.

    notes
        What else there is to know, as sentences.
    """

    changes: dict[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    checked: bool = True
    restart: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def plan(job: Job, restart: bool = False) -> Outcome:
    """What :func:`apply` would do now.

    Raises what it does, but does nothing.
    """
    secrets = keepalived.passwords(job.cluster)
    planned = keepalived.plan(job.path, job.text, secrets)
    outcome = _outcome(job, planned)
    lacking = trackfiles.plan(job.cluster, job.weights)
    outcome.problems = tuple(_lasting(outcome.problems, lacking, job.weights))
    if outcome.problems:
        return outcome
    if planned.problems:
        outcome.changes.update(keepalived.difference(job.path, job.text, secrets))
    _tell(outcome, fifos.plan(job.fifos))
    _tell(outcome, lacking)
    pid = _process(job)
    outcome.failures = _elsewhere(pid, job.path)
    if pid is not None and not outcome.failures and not _has_loaded(job, pid):
        reasons = restarts.needed(loading.text_of(pid) or job.text, job.text)
        outcome.restart = tuple(map(str, reasons))
        if restart or not reasons:
            outcome.changes["loaded"] = _loaded_by("a restart" if reasons else "a reload")
    if not outcome.failures:
        _tell(outcome, trackfiles.plan_gone(job.cluster, job.weights))
    return outcome


def _lasting(
    problems: Iterable[str], lacking: Iterable[trackfiles.Change], weights: str
) -> Iterator[str]:
    """What keepalived would have against a text with the files of weights in place."""
    places = {change.path for change in lacking}
    # As the configuration calls them: by virtual and real server.
    names = {os.path.relpath(place, weights) for place in places}
    passing = places | names | {os.path.dirname(place) for place in places}
    for problem in problems:
        if not (_TRACK_FILE.search(problem) and passing.intersection(_WORD.findall(problem))):
            yield problem


def apply(job: Job, restart: Callable[[], object] | None = None) -> Outcome:
    """Make the pipes and files, write the configuration, and have the running keepalived load it.

    restart
        Restarts keepalived; called where a reload will not do. ``None`` where that is not wanted.

    Raises :class:`~saltext.lvs.errors.NotAvailable` if keepalived is not installed, and
    :class:`~saltext.lvs.errors.LvsError` for what cannot be read or written, or is in the way of a
    pipe.
    """
    with locking.exclusive(LOCK):
        # All are looked at once: there may be thousands.
        weights = trackfiles.weights(job.cluster, job.weights)
        lacking = trackfiles.lacking(job.cluster, weights, job.weights)
        made: list[fifos.Change | trackfiles.Change] = []

        def first() -> None:
            # Before the file names them: keepalived may be started by anybody from then on.
            if not made:
                made.extend(fifos.make(job.fifos))
                trackfiles.write(lacking, job.weights)
                made.extend(lacking)

        trackfiles.make_folders(lacking, job.weights)
        secrets = keepalived.passwords(job.cluster)
        outcome = _outcome(job, keepalived.apply(job.path, job.text, secrets, first))
        if not outcome.problems:
            first()
            _tell(outcome, made)
            _load(job, restart, outcome)
        return outcome


def _load(job: Job, restart: Callable[[], object] | None, outcome: Outcome) -> None:
    pid = _process(job)
    outcome.failures = _elsewhere(pid, job.path)
    if outcome.failures:
        return
    if pid is None:
        # Whoever starts it finds the table as the pillar says.
        handover.prepare(_moves(job, ""))
    elif not _has_loaded(job, pid):
        if not _is_right(job, outcome):
            return
        old = loading.text_of(pid)
        _change(job, pid, old or job.text, _moves(job, old), restart, outcome)
    if not (outcome.failures or outcome.restart):
        gone = trackfiles.plan_gone(job.cluster, job.weights)
        trackfiles.write(gone, job.weights)
        _tell(outcome, gone)


def _moves(job: Job, loaded: str | None) -> handover.Moves:
    # Not as they were before the text was looked at: an operator may drain meanwhile.
    now = trackfiles.weights(job.cluster, job.weights)
    return handover.moves(job.cluster, trackfiles.wanted(job.cluster, now), loaded)


def _is_right(job: Job, outcome: Outcome) -> bool:
    """Whether keepalived has nothing against the file, which may have been there long before."""
    if "diff" not in outcome.changes:
        problems = keepalived.check(job.path, keepalived.passwords(job.cluster))
        outcome.problems = tuple(_with_place(problem, job.text) for problem in problems)
    return not outcome.problems


def _change(
    job: Job,
    pid: int,
    old: str,
    moves: handover.Moves,
    restart: Callable[[], object] | None,
    outcome: Outcome,
) -> None:
    """Have a running keepalived go by the new text."""
    reasons = restarts.needed(old, job.text)
    if reasons and restart is None:
        # A reload would be passed over, or do harm: what runs stays what it is.
        outcome.restart = tuple(map(str, reasons))
        return
    handover.prepare(moves)
    if reasons and restart:
        with handover.watched(job.cluster, moves.to_salt) as watch:
            restart()
            outcome.failures = _settle(job, watch)
    else:
        _reload(job, pid, old, moves, outcome)
    outcome.changes["loaded"] = _loaded_by("a restart" if reasons else "a reload")


def _reload(job: Job, pid: int, old: str, moves: handover.Moves, outcome: Outcome) -> None:
    try:
        before = proving.gather(pid, old)
        with handover.watched(job.cluster, moves.to_salt) as watch:
            loading.reload(pid, watch)
        after = proving.gather(pid, job.text)
    except LvsError as error:
        outcome.failures = (str(error),)
        return
    outcome.failures = proving.harm(before, after, old, job.text)
    outcome.notes += [*proving.moves(before, after), *_without_sync_daemon(old, job.text)]
    if watch:
        outcome.notes += [
            f"{key} is kept by Salt now; it was away for {watch.away * 1000:.0f} ms at most"
            for key in sorted(map(str, watch.put_back))
        ]
    _note(job, pid)


def _without_sync_daemon(old: str, new: str) -> Iterator[str]:
    """Stop the sync daemons that are not named any more: a reload leaves them running."""
    if loading.has(old, _SYNC_DAEMON) and not loading.has(new, _SYNC_DAEMON):
        for state in settings.SyncState:
            if settings.stop_sync_daemon(state):
                yield f"the {state.value} sync daemon was stopped"


def reload(
    path: str,
    pid_file: str = running.PID_FILE,
    secrets: Collection[str] = (),
    instance: str = "",
) -> tuple[str, ...]:
    """Make the running keepalived read its file again, and return the harm that was done by it.

    path
        Its configuration file.

    secrets
        Passwords that the file holds, as for :func:`saltext.lvs.keepalived.check`.

    instance
        keepalived's own name, see :func:`saltext.lvs.running.process`.

    Raises :class:`~saltext.lvs.errors.CommandFailed` if it does not run, runs with another file,
    hangs, or would refuse the file: a reload of a wrong one ends it, or takes real servers out.
    Likewise for a file that only a restart would put in effect.
    """
    problems = keepalived.check(path, secrets)
    if problems:
        raise CommandFailed("\n".join([f"{path} is not loaded:", *problems]))
    with locking.exclusive(LOCK):
        pid = running.process(pid_file, instance, path)
        if pid is None:
            raise CommandFailed("keepalived does not run")
        if running.runs_with(pid, path) is False:
            raise CommandFailed(f"keepalived runs with {running.source_of(pid)}, not with {path}")
        found = files.read(path)
        new = found[0] if found else ""
        old = loading.text_of(pid) or new
        reasons = list(map(str, restarts.needed(old, new)))
        if reasons:
            raise CommandFailed("\n".join(["keepalived has to be restarted for it:", *reasons]))
        before = proving.gather(pid, old)
        loading.reload(pid)
        return proving.harm(before, proving.gather(pid, new), old, new)


# --------------------------------------------------------------------------------------------------
# After a restart


def _settle(job: Job, watch: handover.Watch | None) -> tuple[str, ...]:
    """Wait until VRRP has found its state; return what has not come about."""
    end = time.monotonic() + SETTLE_SECONDS
    lengthened = False
    left: tuple[str, ...] = ("keepalived does not run after the restart",)
    while time.monotonic() < end:
        report = _report(job)
        if report is not None:
            if not lengthened:
                slowest = max((each.advert_seconds for each in report.values()), default=0)
                end, lengthened = end + SETTLE_ADVERTS * slowest, True
            left = proving.unsettled(report, _addresses())
            if not left:
                return left
        if watch:
            watch()
        time.sleep(_PAUSE_SECONDS)
    return left


def _report(job: Job) -> running.Report | None:
    pid = _process(job)
    if pid is None:
        return None
    if not loading.has(job.text, "vrrp_instance"):
        return {}
    try:
        return running.ask(pid)
    except NotAvailable:
        return None


def _addresses() -> Iterable[Any]:
    return [each.address.ip for link in rtnetlink.read_all() for each in link.addresses]


# --------------------------------------------------------------------------------------------------
# What is loaded


def _process(job: Job) -> int | None:
    return running.process(job.pid_file, loading.instance_in(job.text), job.path)


def _elsewhere(pid: int | None, path: str) -> tuple[str, ...]:
    """Why a reload would load nothing of a file, as sentences: keepalived runs with another."""
    if pid is None or running.runs_with(pid, path) is not False:
        return ()
    return (
        f"keepalived (process {pid}) runs with {running.source_of(pid)}, not with {path}: nothing "
        "of this is in effect.",
        f"Either start it with {path}: look for -f and --use-file in its unit and in "
        "/etc/default/keepalived; the restart takes the VIPs down. Or give this state the name of "
        "the file that it runs with.",
    )


def _has_loaded(job: Job, pid: int) -> bool:
    return bool(loading.is_loaded(pid, job.text)) or bool(_noted(job) == _mark(job, pid))


def _note(job: Job, pid: int) -> None:
    """Remember what this text has become, where keepalived keeps it in other words."""
    if not loading.is_loaded(pid, job.text):
        files.write(job.record, json.dumps(_mark(job, pid)))


def _noted(job: Job) -> Any:
    found = files.read(job.record)
    try:
        return json.loads(found[0]) if found else None
    except ValueError:
        return None


def _mark(job: Job, pid: int) -> dict[str, str]:
    loaded = loading.text_of(pid)
    return {
        "process": f"{pid} {loading.started_at(pid)}",
        "text": _digest(job.text),
        "loaded": "" if loaded is None else _digest(loaded),
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# --------------------------------------------------------------------------------------------------
# Tell


def _outcome(job: Job, change: keepalived.FileChange) -> Outcome:
    problems = tuple(_with_place(problem, job.text) for problem in change.problems)
    return Outcome(dict(change.changes), problems, change.checked)


def _with_place(problem: str, text: str) -> str:
    """A complaint, with the place of the pillar that its line comes from."""
    found = _LINE.match(problem)
    place = origins.path(text, int(found[1])) if found else ""
    return f"{place}: {problem}" if place else problem


def _tell(outcome: Outcome, changes: Iterable[fifos.Change | trackfiles.Change]) -> None:
    for change in changes:
        outcome.changes[change.path] = change.as_data()


def _loaded_by(how: str) -> Mapping[str, str]:
    """The change of what runs, as Salt reports it."""
    return {"old": "another configuration", "new": f"this configuration, by {how}"}
