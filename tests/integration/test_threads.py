"""A real minion whose jobs are threads of one process (``multiprocessing: False``), as on machines
where a fork for each job is too dear.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.lab import Lab
from tests.lab.cluster import SaltCluster
from tests.lab.lab import HOSTS

NAMES = [f"tcp 10.10.10.20:{8000 + number}" for number in range(4)]
WEB = "tcp 10.10.10.10:80"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A master and one director; this is about that minion alone."""
    with Lab({name: HOSTS[name] for name in ("master", "lb1")}) as lab:
        lab["lb1"].run(["modprobe", "ip_vs"], check=True)
        lab["lb1"].write("/etc/salt/minion.d/threads.conf", "multiprocessing: False\n")
        yield lab


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Iterator[SaltCluster]:
    with SaltCluster(lab, minions=("lb1",), web_servers=()) as cluster:
        yield cluster


def at_once(cluster: SaltCluster, *commands: list[str]) -> list[object]:
    """Start jobs on lb1 all at once; what each returned."""
    started = [
        cluster.master.popen(
            ["salt", "--out=json", "--static", "lb1", *command], stdout=subprocess.PIPE, text=True
        )
        for command in commands
    ]
    return [json.loads(job.communicate(timeout=120)[0])["lb1"] for job in started]


def test_jobs_of_a_minion_that_does_not_fork_share_one_table(cluster: SaltCluster) -> None:
    assert cluster.salt("lb1", "config.get", "multiprocessing") == {"lb1": False}
    assert "modules.ipvs" in cluster.salt("lb1", "saltutil.sync_all")["lb1"]["modules"]
    applied = cluster.salt("lb1", "ipvs.apply")["lb1"]
    assert isinstance(applied, dict), applied
    assert (len(applied["operations"]), applied["left"]) == (3, [])
    made = at_once(cluster, *(["ipvs.add_virtual_server", name] for name in NAMES))
    assert [job["operations"] for job in made] == [[f"add virtual server {name}"] for name in NAMES]
    assert sorted(cluster.salt("lb1", "ipvs.list")["lb1"]) == sorted([WEB, *NAMES])
    assert cluster.salt("lb1", "ipvs.apply")["lb1"]["operations"] == []
