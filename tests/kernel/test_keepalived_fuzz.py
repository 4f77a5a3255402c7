"""Five hundred broken pillars: none of them touches the file or the keepalived that runs, and no
password comes back in what is said of them.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from saltext.lvs import applying, fifos, keepalived, loading, model, running, trackfiles
from saltext.lvs.applying import Job
from saltext.lvs.errors import InvalidConfig, LvsError

from tests.golden.cases import TEMPLATE
from tests.kernel.commands import ip
from tests.kernel.keepaliveds import Keepalived, held, started

SEED = 5
PILLARS = 500
PASSWORD = "Hush4711"
VIP = "10.10.10.10"

PILLAR: dict[str, Any] = {
    "lvs": {
        "name": "prod",
        "directors": {"lb1": {"router_id": "LVS_PRI", "state": "MASTER", "priority": 150}},
        "real_servers": {
            "rs1": {"address": "10.10.10.41"},
            "rs2": {"address": "10.10.10.42", "enabled": True},
        },
        "vrrp_instances": {
            "V": {
                "interface": "eth0",
                "virtual_router_id": 10,
                "advert_int": 1,
                "virtual_ipaddress": [VIP],
                "extra": {"garp_master_delay": 1},
            }
        },
        "sync_daemon": {"interface": "eth0", "vrrp_instance": "V", "syncid": 10},
        "virtual_servers": {
            "web": {
                "address": VIP,
                "port": 80,
                "scheduler": "wlc",
                "forward": "direct",
                "persistence": 5,
                "managed_by": "keepalived",
                "check": {"types": ["tcp"], "interval": 10, "connect_timeout": 3, "fall": 2},
                "real_servers": {"rs1": {"weight": 50}, "rs2": {"weight": 50}},
                "extra": {"quorum": 1},
            }
        },
        "alerts": {"by": "keepalived", "notification_email": ["noc@example.com"]},
        "keepalived": {
            "global_defs": {
                "vrrp_garp_master_delay": 1,
                "script_user": "root",
                "enable_script_security": True,
            },
            "vrrp_scripts": {"ok": {"script": "/bin/true", "interval": 5}},
            "extra": {"garp_group": {"garp_interval": 1, "interface": "eth0"}},
        },
    },
    "lvs_secrets": {"vrrp_instances": {"V": {"auth_pass": PASSWORD}}},
}
GARBAGE: tuple[Any, ...] = (
    *(None, True, -1, 0, 256, 10**9, 1.5, float("nan"), "", " ", "x y", "}", "{", "} {", "a\nb"),
    *("\x00", "é", "'", '"', "$(reboot)", "${X}", "#", "!", "\\", "../..", "eth9", "lo", "nope"),
    *("0.0.0.0", "300.1.1.1", "fd00::1", "10.10.10.0/24", "255.255.255.255", [], {}, [[]]),
    *({"a": {"b": {}}}, {"prioritty": 5}, {"include": "/etc/shadow"}, ["a", {"b": None}]),
    *(PASSWORD, f"x{PASSWORD}", {PASSWORD: 1}, [PASSWORD]),
)
WORDS = ("prioritty", "interface", "}", "auth_pass", "virtual_server", "a b", PASSWORD, "extra")


def broken(pick: random.Random) -> dict[str, Any]:
    """The pillar with one to three things wrong in it."""
    pillar = copy.deepcopy(PILLAR)
    for _ in range(pick.randint(1, 3)):
        spoil(pillar, pick)
    return pillar


def spoil(pillar: dict[str, Any], pick: random.Random) -> None:
    holder: Any = pick.choice([node for node in nodes(pillar) if node])
    places = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    place = pick.choice(places)
    kind = pick.choice(("replace", "replace", "replace", "remove", "add", "rename"))
    if kind == "replace":
        holder[place] = copy.deepcopy(pick.choice(GARBAGE))
    elif kind == "remove":
        del holder[place]
    elif isinstance(holder, list):
        holder.append(copy.deepcopy(pick.choice(GARBAGE)))
    elif kind == "add":
        holder[pick.choice(WORDS)] = copy.deepcopy(pick.choice(GARBAGE))
    else:
        holder[pick.choice(WORDS)] = holder.pop(place)


def nodes(tree: Any) -> list[Any]:
    """All mappings and lists below, but for the one that has the secrets' names at the top."""
    if isinstance(tree, dict):
        below = [node for value in tree.values() for node in nodes(value)]
        return [*([] if "lvs_secrets" in tree else [tree]), *below]
    if isinstance(tree, list):
        return [tree, *(node for value in tree for node in nodes(value))]
    return []


@pytest.fixture
def daemon(netns: None, tmp_path: Path) -> Any:
    """A keepalived that runs with the pillar's configuration."""
    ip("link add eth0 type veth peer name eth0-peer")
    ip("link set eth0-peer up")
    ip("link set eth0 up")
    ip("address add 10.10.10.11/24 dev eth0")
    cluster = model.from_pillar(PILLAR)
    text = keepalived.render(cluster, "lb1", TEMPLATE)
    # Where the configuration names them: the lab's machine is thrown away.
    fifos.make()
    trackfiles.write(trackfiles.plan(cluster))
    with started(tmp_path, text, VIP) as one:
        assert applying.apply(job(one, PILLAR)).failures == ()
        yield one


def job(daemon: Keepalived, pillar: dict[str, Any]) -> Job:
    cluster = model.from_pillar(pillar)
    return Job(
        path=str(daemon.conf),
        text=keepalived.render(cluster, "lb1", TEMPLATE),
        cluster=cluster,
        pid_file=daemon.pid_file,
        record=str(daemon.folder / "record"),
    )


def said_of(daemon: Keepalived, pillar: dict[str, Any]) -> tuple[str, str]:
    """Who refused a pillar, and all that was said; what is not broken is not applied."""
    try:
        wanted = job(daemon, pillar)
    except InvalidConfig as error:
        return "model", str(error)
    except LvsError as error:
        return "template", str(error)
    planned = applying.plan(wanted)
    if not planned.problems:
        return "nobody", repr(dataclasses.asdict(planned))
    done = applying.apply(wanted)
    return "keepalived", repr([dataclasses.asdict(told) for told in (planned, done)])


def now(daemon: Keepalived) -> tuple[Any, ...]:
    """What must not change: the very file, what is beside it, and what runs."""
    status = os.stat(daemon.conf)
    beside = sorted(path.name for path in daemon.folder.iterdir())
    return (
        (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, daemon.conf.read_bytes(), beside),
        (daemon.process.poll(), loading.children(daemon.pid), loading.text_of(daemon.pid)),
    )


@pytest.mark.timeout(300)
def test_a_broken_pillar_changes_neither_the_file_nor_what_runs(daemon: Keepalived) -> None:
    pick = random.Random(SEED)
    before = now(daemon)
    refused: Counter[str] = Counter()
    for number in range(PILLARS):
        pillar = broken(pick)
        by, said = said_of(daemon, pillar)
        refused[by] += 1
        assert now(daemon) == before, (number, pillar)
        if is_secret(pillar):
            assert PASSWORD not in said, (number, pillar)
    print(dict(refused))
    assert refused["model"] > PILLARS / 3
    assert refused["keepalived"] > 5
    report = running.ask(daemon.pid)
    assert report is not None
    assert report["V"].state is running.State.MASTER
    assert VIP in held()
    assert "Reloading" not in daemon.log.read_text()


def is_secret(pillar: dict[str, Any]) -> bool:
    """Whether the password is below ``lvs_secrets`` alone, whatever its keys are, and no key."""
    return repr(pillar).count(PASSWORD) == repr(pillar["lvs_secrets"]).count(f": '{PASSWORD}'")
