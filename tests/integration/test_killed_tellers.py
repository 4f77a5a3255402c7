"""What tells of incidents is killed while they last: a sample of what ``make soak`` does."""

from __future__ import annotations

import pytest

from tests.integration import alerting
from tests.lab.cluster import MINIONS
from tests.soak.incidents import Incidents

pytestmark = pytest.mark.timeout(1800)

SEED, SAMPLE = 7, 3


def test_whoever_is_killed_every_incident_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    with alerting.lab_of("master", *MINIONS) as lab, alerting.cluster_in(lab) as cluster:
        alerting.begin_anew(cluster)
        soak = Incidents(cluster, SEED)
        done = list(soak.rounds(SAMPLE))
        problems, repeated = soak.judged()
    with capsys.disabled():
        for found in done:
            print(f"\n      {found.name}; killed: {', '.join(found.deaths)}", end="", flush=True)
    assert [found.problems for found in done] == [()] * SAMPLE
    assert problems == []
    # A mail may come again where the relay had it and its answer did not come back.
    assert repeated <= len(soak.deaths)
