"""Tests with real masters and minions: one lab with a cluster for each file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab import Lab, inside
from tests.lab.cluster import SaltCluster


@pytest.fixture(scope="session", autouse=True)
def _in_the_lab() -> None:
    inside.require("tests/integration")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """All hosts, switched on."""
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Iterator[SaltCluster]:
    """The master and its four minions, which answer; nothing is applied yet."""
    with SaltCluster(lab) as cluster:
        yield cluster
