"""What `salt-run` tells of the master's book of incidents, and of what waits to be sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import salt.config
import salt.runner
from salt.exceptions import SaltInvocationError
from saltext.lvs.incidents import Incident, Part, Severity, Subject, Trouble
from saltext.lvs.journal import Action, Journal
from saltext.lvs.outbox import Parcel

from tests.functional.conftest import CHECKOUT

NOW = 1_795_350_000.0
TROUBLE = Trouble(
    Subject("servers", "rs1:80 of web"),
    Severity.WARNING,
    "rs1:80 OUT of web",
    "rs1:80 back in web",
    reason="connection refused",
    told_by=("lb1",),
)


def incident(name: str, cluster: str = "prod", closed: float | None = None) -> Incident:
    part = Part(TROUBLE, NOW, closed)
    return Incident(
        id=name, cluster=cluster, group="servers", opened=NOW, closed=closed, parts=(part,)
    )


@pytest.fixture
def book(tmp_path: Path) -> Journal:
    return Journal(str(tmp_path / "incidents.sqlite"))


@pytest.fixture
def run(tmp_path: Path, book: Journal) -> Any:
    opts = salt.config.master_config(None)
    opts.update(
        cachedir=str(tmp_path / "cache"),
        extension_modules=str(tmp_path / "extmods"),
        module_dirs=[str(CHECKOUT)],
        lvs_alerts={"journal": book.path},
    )
    return salt.runner.RunnerClient(opts).functions


def test_without_a_book_there_is_nothing(run: Any) -> None:
    assert run["lvs.incidents"]() == {"open": [], "closed": []}
    assert run["lvs.outbox"]() == {"waiting": [], "refused": []}


def test_incidents_are_listed_and_one_is_told_in_full(run: Any, book: Journal) -> None:
    with book.writing() as pen:
        pen.keep(incident("20261123-170916-aa"))
        pen.keep(incident("20261123-170917-bb", closed=NOW + 60))
        pen.keep(incident("20261123-170918-cc", cluster="test"))
        pen.act(Action(NOW, "prod", "lb1", "x", "lvs.reweight", "why", "changed: web\r\n", 1, True))
        pen.act(
            Action(
                NOW,
                "prod",
                "lb1",
                "x",
                "lvs.reweight",
                "why",
                "done",
                incident="20261123-170916-aa",
            )
        )
    told = run["lvs.incidents"](cluster="prod")
    assert [one["id"] for one in told["open"]] == ["20261123-170916-aa"]
    assert told["open"][0]["what"] == ["rs1:80 OUT of web (connection refused)"]
    assert [one["id"] for one in told["closed"]] == ["20261123-170917-bb"]
    full = run["lvs.incidents"]("20261123-170916")
    assert full["actions"] == ["2026-11-22T12:20:00Z lb1: lvs.reweight (why): done"]


def test_what_waits_is_told(run: Any, book: Journal) -> None:
    with book.writing() as pen:
        pen.queue(Parcel("mail", "mail", {}, b"x", queued_at=NOW))
    (waiting,) = run["lvs.outbox"]()["waiting"]
    assert (waiting["lane"], waiting["waiting"], waiting["tries"]) == ("mail", 1, 0)


@pytest.mark.parametrize(
    ("function", "given", "message"),
    [
        pytest.param("lvs.incidents", {"limit": "many"}, "limit is 'many'", id="no number"),
        pytest.param("lvs.incidents", {"limit": 0}, "limit is 0", id="none"),
        pytest.param("lvs.outbox", {"limit": True}, "limit is True", id="a word"),
        pytest.param("lvs.incidents", {"incident": "x"}, "incident is 'x'", id="not there"),
        pytest.param("lvs.incidents", {"incident": ""}, "incident is ''", id="an empty id"),
    ],
)
def test_what_cannot_be_asked_for_is_named(
    run: Any, function: str, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(SaltInvocationError, match=message):
        run[function](**given)
