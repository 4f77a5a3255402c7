"""What a reload must leave as it is, looked at before and after: VRRP states, VIPs, virtual servers
with their connections, keepalived's own processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from saltext.lvs import handover, ipvs, loading, rtnetlink, running, stats
from saltext.lvs.errors import CommandFailed
from saltext.lvs.model import Address, VirtualServerKey
from saltext.lvs.running import Report, State


@dataclass(frozen=True, slots=True)
class Evidence:
    """How a director is at one moment.

    children
        The numbers of keepalived's other processes.

    held
        All addresses on this machine's interfaces.

    connections
        How many connections each virtual server has been given since it was added: one that was
        deleted and added again begins at 0.
    """

    children: frozenset[int] = frozenset()
    report: Report = field(default_factory=dict)
    held: frozenset[Address] = frozenset()
    connections: Mapping[VirtualServerKey, int] = field(default_factory=dict)


def gather(pid: int, text: str) -> Evidence:
    """Look at everything.

    text
        What keepalived has loaded.

    Raises :class:`~saltext.lvs.errors.CommandFailed` for a keepalived that does not answer.
    """
    report: Report | None = {}
    # One without an instance never answers.
    if loading.has(text, "vrrp_instance"):
        report = running.ask(pid)
    if report is None:
        raise CommandFailed(
            f"keepalived (process {pid}) does not answer within {running.PATIENCE_SECONDS:g} s: "
            "it hangs"
        )
    held = frozenset(each.address.ip for link in rtnetlink.read_all() for each in link.addresses)
    connections = stats.connections_ever() if ipvs.loaded() else {}
    return Evidence(loading.children(pid), report, held, connections)


def harm(before: Evidence, after: Evidence, old: str, new: str) -> tuple[str, ...]:
    """What a reload has done that it should not, as sentences.

    old, new
        What was loaded before and is loaded now. An instance that they describe alike must be in
        the state that it was in, without having left it.
    """
    return (
        *_processes(before, after, old, new),
        *_instances(before, after, old, new),
        *_vips(before, after),
        *_virtual_servers(before, after, handover.named_in(old) & handover.named_in(new)),
    )


def moves(before: Evidence, after: Evidence) -> tuple[str, ...]:
    """The instances that have changed their state, as sentences."""
    return tuple(
        f"{name} went from {was.state.name} to {after.report[name].state.name}"
        for name, was in before.report.items()
        if name in after.report and after.report[name].state is not was.state
    )


# What each process is for: it ends with the last of it.
_PURPOSES = ("vrrp_instance", "virtual_server", "bfd_instance")


def _processes(before: Evidence, after: Evidence, old: str, new: str) -> Iterator[str]:
    gone = before.children - after.children
    spared = sum(loading.has(old, word) and not loading.has(new, word) for word in _PURPOSES)
    if len(gone) > spared:
        yield "a process of keepalived has ended at the reload; keepalived's log has the reason"


def _instances(before: Evidence, after: Evidence, old: str, new: str) -> Iterator[str]:
    described = (loading.blocks_of(text, "vrrp_instance") for text in (old, new))
    blocks_before, blocks_after = described
    for name, was in before.report.items():
        now = after.report.get(name)
        if now is None:
            if name in blocks_after:
                yield f"keepalived does not know VRRP instance {name} any more"
        elif blocks_before.get(name) == blocks_after.get(name) and _left(was, now):
            yield (
                f"VRRP instance {name} left {was.state.name}, although nothing of it has changed; "
                f"now it is {now.state.name}"
            )


# Not the time of its last transition: a reload counts for one.
_TRANSITIONS = ("become_master", "release_master")


def _left(was: running.Instance, now: running.Instance) -> bool:
    return was.state is not now.state or any(
        was.counters.get(name) != now.counters.get(name) for name in _TRANSITIONS
    )


def _vips(before: Evidence, after: Evidence) -> Iterator[str]:
    for name, was in before.report.items():
        now = after.report.get(name)
        if now is None or now.state is not State.MASTER:
            continue
        kept = {vip.address for vip in was.vips} & {vip.address for vip in now.vips}
        for vip in sorted((kept & before.held) - after.held, key=str):
            yield f"{vip} of VRRP instance {name} is on no interface any more"


def _virtual_servers(
    before: Evidence, after: Evidence, kept: Iterable[VirtualServerKey]
) -> Iterator[str]:
    for key in sorted(set(kept) & set(before.connections), key=VirtualServerKey.sort_key):
        if key not in after.connections:
            yield f"{key} is not in the IPVS table any more"
        elif after.connections[key] < before.connections[key]:
            yield f"{key} was deleted and added again: its connections may be cut"


# --------------------------------------------------------------------------------------------------
# After a start


def unsettled(report: Report, held: Iterable[Address]) -> tuple[str, ...]:
    """What has not come about yet after a start, as sentences: every instance has found its state,
    and its VIPs are here, or a master elsewhere has been heard.
    """
    return tuple(_unsettled(report, frozenset(held)))


def _unsettled(report: Report, held: frozenset[Address]) -> Iterator[str]:
    for name, instance in report.items():
        missing = [str(vip.address) for vip in instance.vips if vip.address not in held]
        if instance.state is State.MASTER and missing:
            yield f"VRRP instance {name} is MASTER without {', '.join(missing)}"
        elif instance.state is State.BACKUP and not instance.counters.get("advert_rcvd"):
            yield f"VRRP instance {name} is BACKUP, and no master has been heard"
        elif instance.state not in (State.MASTER, State.BACKUP):
            yield f"VRRP instance {name} is in state {instance.state.name}"
