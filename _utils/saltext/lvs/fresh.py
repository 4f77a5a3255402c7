"""Ask the real servers of one virtual server now, from this director, and change nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from saltext.lvs import checksets, probe
from saltext.lvs.checks import Check, Verdict
from saltext.lvs.checksets import Key
from saltext.lvs.checkwords import CheckType
from saltext.lvs.errors import InvalidConfig
from saltext.lvs.model import Cluster

# Whoever asks by hand wants an answer, whatever the pillar's timeout is.
MOST_SECONDS = 10.0
# Thousands of real servers may have to wait for one another.
IN_ALL_SECONDS = 30.0


def checks(
    cluster: Cluster, virtual_server: object, real_server: object = None
) -> tuple[Check, ...]:
    """What to ask the real servers of a virtual server, or one of them, by its ``check``.

    Raises :class:`~saltext.lvs.errors.InvalidConfig` for a name that the pillar does not have, and
    for a virtual server of which nothing can be asked.
    """
    config = _named("virtual_server", virtual_server, cluster.virtual_servers)
    shares = {share.name: share for share in config.real_servers}
    if real_server is not None:
        shares = {str(real_server): _named("real_server", real_server, shares)}
    found = [
        check for share in shares.values() for check in checksets.of_one(cluster, config, share)
    ]
    if not found:
        reason = config.against(CheckType.TCP) or "check:types or checkers are empty"
        expected = f"one whose real servers are checked: {reason}"
        raise InvalidConfig("virtual_server", virtual_server, expected)
    return tuple(replace(check, timeout=min(check.timeout, MOST_SECONDS)) for check in found)


def ask(cluster: Cluster, virtual_server: object, real_server: object = None) -> dict[str, Any]:
    """Carry :func:`checks` out; plain values by real server.

    Raises as that does.
    """
    asked = checks(cluster, virtual_server, real_server)
    return answer(probe.ask(asked, IN_ALL_SECONDS))


def answer(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Verdicts as plain values by real server: ``ok``, and the ``checks``."""
    found: dict[str, Any] = {}
    for verdict in verdicts:
        assert isinstance(verdict.key, Key)
        of = found.setdefault(verdict.key.real_server, {"ok": None, "checks": []})
        of["checks"].append(
            {
                "check": verdict.key.kind,
                "place": verdict.key.place,
                "ok": verdict.ok,
                "reason": verdict.reason,
                "ms": round(verdict.milliseconds, 2),
            }
        )
    for of in found.values():
        of["ok"] = _overall(check["ok"] for check in of["checks"])
    return found


def _overall(all_of: Iterable[bool | None]) -> bool | None:
    """One that fails decides; what could not be asked leaves it open."""
    several = set(all_of)
    if False in several:
        return False
    return None if None in several else True


def _named(path: str, name: object, among: Any) -> Any:
    if isinstance(name, str) and name in among:
        return among[name]
    known = ", ".join(among) or "there is none"
    raise InvalidConfig(path, name, f"the name of one in the pillar: {known}")
