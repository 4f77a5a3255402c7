"""The runner on a master that serves the example pillar from Salt's own environments."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import salt.cache
import salt.client
import salt.config
import salt.exceptions
import salt.pillar
import salt.runner
import yaml
from salt.exceptions import CommandExecutionError
from saltext.lvs import holders, rounds

from tests.functional.conftest import CHECKOUT, EXAMPLES
from tests.lab.waiting import until

VALID = {"valid": True, "problems": [], "warnings": []}


@pytest.fixture
def master(tmp_path: Path) -> dict[str, Any]:
    """A master's configuration with the example pillar."""
    return configured(tmp_path)


def configured(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "cache" / "proc").mkdir(parents=True)
    opts: dict[str, Any] = salt.config.master_config(None)
    opts.update(
        root_dir=str(tmp_path),
        cachedir=str(tmp_path / "cache"),
        pki_dir=str(tmp_path / "pki"),
        sock_dir=str(tmp_path / "sock"),
        conf_file=str(tmp_path / "master"),
        log_file=str(tmp_path / "log"),
        module_dirs=[str(CHECKOUT)],
        file_roots={"base": [str(CHECKOUT)]},
        pillar_roots={
            "base": [str(EXAMPLES)],
            "production": [str(EXAMPLES / "production")],
            "staging": [str(EXAMPLES / "staging")],
            "by_keepalived": [str(EXAMPLES / "by_keepalived")],
        },
    )
    return opts


def validate(master: dict[str, Any], *args: str) -> Any:
    return salt.runner.RunnerClient(master).cmd("lvs.validate", list(args), print_event=False)


@pytest.mark.parametrize(
    ("minion_id", "cluster", "roles"),
    [
        ("lb1", "prod", ["director"]),
        ("lb2", "prod", ["director"]),
        ("rs1", "prod", ["realserver"]),
        ("kvm1", "prod", ["hypervisor"]),
        ("staging-lb1", "staging", ["director"]),
        ("staging-rs2", "staging", ["realserver"]),
    ],
)
def test_each_minion_of_the_examples_has_a_valid_pillar(
    master: dict[str, Any], minion_id: str, cluster: str, roles: list[str]
) -> None:
    assert validate(master, minion_id) == {minion_id: {**VALID, "cluster": cluster, "roles": roles}}


def test_a_minion_without_a_cluster_is_told_so_when_asked_for(master: dict[str, Any]) -> None:
    assert validate(master, "elsewhere") == {
        "elsewhere": {
            "valid": False,
            "problems": [
                "lvs is missing; it should be the cluster's description; see docs/pillar.md"
            ],
            "warnings": [],
        }
    }


@pytest.mark.parametrize(
    ("minion_id", "gets_it"),
    [
        ("lb1", True),
        ("lb2", True),
        ("rs1", False),
        ("rs2", False),
        ("kvm1", False),
        ("staging-lb1", True),
        ("staging-rs1", False),
        ("elsewhere", False),
    ],
)
def test_only_directors_are_given_the_password(
    master: dict[str, Any], minion_id: str, gets_it: bool
) -> None:
    # A minion says its grains itself: those of a director must not help a real server.
    grains = {"id": minion_id, "host": "lb1", "fqdn": "lb1", "nodename": "lb1", "roles": "director"}
    pillar = salt.pillar.Pillar(master, grains, minion_id, None).compile_pillar()
    assert ("MY_PASS" in str(dict(pillar)) or "STAGING" in str(dict(pillar))) is gets_it
    assert ("lvs_secrets" in pillar) is gets_it


def test_a_broken_pillar_file_is_told_as_such(master: dict[str, Any], tmp_path: Path) -> None:
    broken = tmp_path / "pillar"
    broken.mkdir()
    (broken / "top.sls").write_text("base: {'*': [lvs]}\n", encoding="utf-8")
    (broken / "lvs.sls").write_text("lvs: {name: [\n", encoding="utf-8")
    master["pillar_roots"] = {"base": [str(broken)]}
    answer = validate(master, "lb1")["lb1"]
    assert answer["valid"] is False
    assert "lvs" in answer["problems"][0]


# -------------------------------------------------------------------------------------------------
# Have VIPs announced


class Publisher:
    """Takes jobs as Salt's own client does, and keeps what was asked for."""

    def __init__(self) -> None:
        self.jobs: list[Any] = []
        self.fails = False
        self.matches = True

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def cmd_async(self, tgt: Any, fun: str, **options: Any) -> str | int:
        if self.fails:
            raise salt.exceptions.SaltClientError("the master does not answer")
        if not self.matches:
            return 0
        self.jobs.append((tgt, fun, options))
        return "20270101000000000000"


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Publisher:
    """What reaches minions."""
    publisher = Publisher()
    monkeypatch.setattr(salt.client, "get_local_client", lambda **_: publisher)
    return publisher


@pytest.fixture
def keys(master: dict[str, Any]) -> None:
    """Minions of the examples whose keys are accepted, and one that waits for it."""
    accept(master)


def accept(master: dict[str, Any]) -> None:
    folder = Path(master["pki_dir"])
    for name in ("rs1", "rs2", "lb1", "kvm1", "elsewhere", "staging-rs1"):
        write_key(folder / "minions" / name)
    write_key(folder / "minions_pre" / "staging-rs2")


def write_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", encoding="ascii"
    )


def announce(master: dict[str, Any], minion_id: Any) -> Any:
    return salt.runner.RunnerClient(master).cmd("lvs.announce", [minion_id], print_event=False)


def book(master: dict[str, Any]) -> Path:
    return Path(master["cachedir"], "saltext-lvs", "rounds.json")


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(
    ("minion_id", "cluster", "directors"),
    [
        ("rs1", "prod", ["lb1", "lb2"]),
        ("staging-rs1", "staging", ["staging-lb1"]),
        ("lb1", "prod", ["lb1", "lb2"]),
    ],
)
def test_the_directors_of_a_minions_cluster_are_asked_by_their_ids(
    master: dict[str, Any],
    published: Publisher,
    minion_id: str,
    cluster: str,
    directors: list[str],
) -> None:
    answer = announce(master, minion_id)
    assert answer == {
        "asked": directors,
        "cluster": cluster,
        "jid": "20270101000000000000",
        "delay": 0,
    }
    assert published.jobs == [
        (directors, "keepalived.send_garp", {"tgt_type": "list", "kwarg": None})
    ]


@pytest.mark.usefixtures("keys")
def test_what_comes_at_once_again_gets_one_more_round_and_no_third(
    master: dict[str, Any], published: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "SECONDS_BETWEEN", 600.0)
    announced = salt.runner.RunnerClient(master).functions["lvs.announce"]
    answers = [announced(name) for name in ("rs1", "rs2", "rs1", "rs2", "rs1")]
    assert [answer["asked"] for answer in answers] == [["lb1", "lb2"]] * 2 + [[]] * 3
    first, second = published.jobs
    assert first[2]["kwarg"] is None
    assert 0 < second[2]["kwarg"]["delay"] <= rounds.SECONDS_BETWEEN
    assert answers[2] == {
        "asked": [],
        "cluster": "prod",
        "why": "an announcement that is still to come covers this one",
    }


@pytest.mark.usefixtures("keys")
def test_clusters_of_one_name_do_not_cover_each_other(
    master: dict[str, Any], published: Publisher, tmp_path: Path
) -> None:
    alike = shutil.copytree(EXAMPLES / "staging", tmp_path / "staging")
    for path in alike.glob("*.sls"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("name: staging", "name: prod"), encoding="utf-8")
    master["pillar_roots"]["staging"] = [str(alike)]
    answers = [announce(master, name) for name in ("rs1", "rs1", "staging-rs1")]
    assert [answer["cluster"] for answer in answers] == ["prod"] * 3
    assert answers[2]["delay"] == 0
    assert [job[0] for job in published.jobs] == [["lb1", "lb2"]] * 2 + [["staging-lb1"]]


@pytest.mark.usefixtures("keys")
def test_a_round_that_could_not_be_asked_for_does_not_count(
    master: dict[str, Any], published: Publisher
) -> None:
    published.fails = True
    assert "the master does not answer" in announce(master, "rs1")
    published.fails = False
    assert announce(master, "rs1")["delay"] == 0


@pytest.mark.usefixtures("keys")
def test_directors_that_the_master_does_not_know_are_told_as_such(
    master: dict[str, Any], published: Publisher
) -> None:
    published.matches = False
    assert announce(master, "rs1") == {
        "asked": [],
        "why": "no director of cluster prod is a minion of this master: lb1, lb2",
    }
    assert json.loads(book(master).read_text(encoding="utf-8"))["rounds"] == {}
    published.matches = True
    assert announce(master, "rs1")["delay"] == 0


@pytest.mark.usefixtures("keys")
def test_a_round_that_failed_leaves_the_one_before_it_in_the_book(
    master: dict[str, Any], published: Publisher
) -> None:
    announce(master, "rs1")
    written = book(master).read_text(encoding="utf-8")
    published.fails = True
    assert "the master does not answer" in announce(master, "rs2")
    assert book(master).read_text(encoding="utf-8") == written


@pytest.mark.usefixtures("keys")
def test_a_book_that_cannot_be_kept_is_an_error_and_nobody_is_asked(
    master: dict[str, Any], published: Publisher
) -> None:
    book(master).parent.write_text("in the way", encoding="utf-8")
    announced = salt.runner.RunnerClient(master).functions["lvs.announce"]
    with pytest.raises(CommandExecutionError, match="cannot lock .*saltext-lvs/rounds.json.lock"):
        announced("rs1")
    assert published.jobs == []


@pytest.mark.usefixtures("keys")
def test_grains_that_a_minion_may_forge_are_asked_for_nothing(
    master: dict[str, Any], published: Publisher
) -> None:
    forged = {"id": "rs1", "lvs": {"directors": ["kvm1"]}, "roles": ["realserver"]}
    cache = salt.cache.factory(master)
    cache.store("minions/elsewhere", "data", {"grains": forged, "pillar": {"lvs": {}}})
    assert announce(master, "elsewhere")["asked"] == []
    assert published.jobs == []


NOT_ACCEPTED = "there is no minion of that id whose key is accepted"
WRONG: dict[str, tuple[Any, str]] = {
    "a star": ("*", NOT_ACCEPTED),
    "a glob that would match": ("rs?", NOT_ACCEPTED),
    "a list in a string": ("rs1,rs2", NOT_ACCEPTED),
    "a line's end": ("rs1\n", NOT_ACCEPTED),
    "a NUL": ("rs1\0", NOT_ACCEPTED),
    "a DEL": ("rs1\x7f", NOT_ACCEPTED),
    "a way out of the folder": ("../minions/rs1", NOT_ACCEPTED),
    "the folder itself": (".", NOT_ACCEPTED),
    "nothing": ("", NOT_ACCEPTED),
    "a very long name": ("r" * 5000, NOT_ACCEPTED),
    "a compound target": ("G@os:Debian", NOT_ACCEPTED),
    "Jinja": ("{{ salt['cmd.run']('id') }}", NOT_ACCEPTED),
    "None": (None, NOT_ACCEPTED),
    "a number": (41, NOT_ACCEPTED),
    "a list": (["rs1"], NOT_ACCEPTED),
    "a mapping": ({"rs1": "rs1"}, NOT_ACCEPTED),
    "a minion that nobody knows": ("rs99", NOT_ACCEPTED),
    "a minion whose key is not accepted": ("staging-rs2", NOT_ACCEPTED),
    "a virtualization host": (
        "kvm1",
        "kvm1 is no realserver of cluster prod: it plays hypervisor there",
    ),
    "a minion without a cluster": (
        "elsewhere",
        "lvs is missing; it should be the cluster's description; see docs/pillar.md",
    ),
}


@pytest.fixture(scope="module")
def one_master(tmp_path_factory: pytest.TempPathFactory) -> salt.runner.RunnerClient:
    """One master for all that is wrong."""
    master = configured(tmp_path_factory.mktemp("master"))
    accept(master)
    return salt.runner.RunnerClient(master)


@pytest.mark.parametrize(("minion_id", "why"), WRONG.values(), ids=WRONG.keys())
def test_who_plays_no_such_part_has_nobody_asked(
    one_master: salt.runner.RunnerClient, published: Publisher, minion_id: Any, why: str
) -> None:
    assert one_master.functions["lvs.announce"](minion_id) == {"asked": [], "why": why}
    assert published.jobs == []
    # No name from an event becomes one of a file.
    folder = book(one_master.opts).parent
    written = {path.name for path in folder.iterdir()} if folder.exists() else set()
    assert written <= {"rounds.json", "rounds.json.lock"}


@pytest.mark.usefixtures("keys", "published")
def test_who_played_no_such_part_a_moment_ago_costs_no_second_look(
    master: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(master, "kvm1")

    def looked(*_: Any, **__: Any) -> None:
        raise AssertionError("its pillar was compiled again")

    monkeypatch.setattr(salt.pillar, "Pillar", looked)
    assert announce(master, "kvm1") == {
        "asked": [],
        "why": "it was no real server or director when the last one asked, less than a minute ago",
    }
    written = json.loads(book(master).read_text(encoding="utf-8"))
    assert list(written["strangers"]) == ["kvm1"]
    assert abs(written["strangers"]["kvm1"] - time.time()) < 60


@pytest.mark.usefixtures("keys")
def test_a_real_server_whose_pillar_fails_for_a_moment_is_no_stranger(
    master: dict[str, Any], published: Publisher, tmp_path: Path
) -> None:
    right = master["pillar_roots"]
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "top.sls").write_text("base: {'*': [lvs]}\n", encoding="utf-8")
    (broken / "lvs.sls").write_text("lvs: {name: [\n", encoding="utf-8")
    master["pillar_roots"] = {"base": [str(broken)]}
    assert announce(master, "rs1") == {
        "asked": [],
        "why": "its pillar cannot be compiled now; `salt-run lvs.validate rs1` says why",
    }
    assert published.jobs == []
    master["pillar_roots"] = right
    assert announce(master, "rs1")["asked"] == ["lb1", "lb2"]


# -------------------------------------------------------------------------------------------------
# Who holds the VIPs

VIP = "10.10.10.10"


class Directors:
    """Directors that answer what they are made to, and the master's bus."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[Any] = []
        self.told: list[tuple[str, Any]] = []

    def __enter__(self) -> Directors:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def cmd_iter_no_block(self, tgt: Any, fun: str, **options: Any) -> Iterator[Any]:
        """As Salt does: nothing now and then, each answer by itself, and no end while one is at
        work.
        """
        self.asked.append((tgt, fun, options))
        for name, answer in self.answers.items():
            yield None
            yield {name: {"ret": answer, "retcode": 0}}
        while True:
            yield None

    def fire_event(self, data: Any, tag: str) -> None:
        self.told.append((tag, data))

    def say(self, *holders: str) -> None:
        """Have these directors hold the VIP, and all answer."""
        self.answers = {name: holding(name in holders) for name in ("lb1", "lb2")}


def holding(holds: bool) -> dict[str, Any]:
    instance = {"state": "MASTER" if holds else "BACKUP", "vips_held": [VIP] if holds else []}
    return {"vrrp_instances": {"VirtIP_10": instance}}


@pytest.fixture
def directors(monkeypatch: pytest.MonkeyPatch) -> Directors:
    """Both directors of the example, without the waiting."""
    found = Directors()
    monkeypatch.setattr(salt.client, "get_local_client", lambda **_: found)
    monkeypatch.setattr(salt.utils.event, "get_master_event", lambda *_, **__: found)
    monkeypatch.setattr(holders, "patience", lambda *_: 0)
    monkeypatch.setattr(rounds, "SECONDS_BETWEEN", 0.0)
    return found


def run(master: dict[str, Any], function: str, *arguments: Any) -> Any:
    return salt.runner.RunnerClient(master).functions[function](*arguments)


def test_the_holder_of_each_vip_is_told_as_the_directors_say(
    master: dict[str, Any], directors: Directors
) -> None:
    directors.say("lb1")
    assert run(master, "lvs.mastership", "lb1") == {
        "cluster": "prod",
        "vips": {
            VIP: {
                "vrrp_instance": "VirtIP_10",
                "verdict": "held",
                "holders": ["lb1"],
                "silent": [],
                "sides": ["lb1: MASTER", "lb2: BACKUP"],
            }
        },
        "problems": [],
    }
    assert directors.asked == [
        (["lb1", "lb2"], "keepalived.status", {"tgt_type": "list", "timeout": 10})
    ]
    assert directors.told == []


def test_a_director_that_never_ends_its_answer_is_silent(
    master: dict[str, Any], directors: Directors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holders, "ANSWER_SECONDS", 0.5)
    directors.say("lb1")
    del directors.answers["lb2"]
    (vip,) = run(master, "lvs.mastership", "lb1")["vips"].values()
    assert (vip["verdict"], vip["silent"]) == ("held", ["lb2"])
    assert vip["sides"] == ["lb1: MASTER", "lb2: no answer"]


def test_who_is_no_director_has_no_mastership(master: dict[str, Any], directors: Directors) -> None:
    with pytest.raises(salt.exceptions.CommandExecutionError, match="rs1 is no director"):
        run(master, "lvs.mastership", "rs1")
    assert directors.asked == []


@pytest.mark.usefixtures("keys")
def test_a_split_brain_is_told_once_and_its_end_once(
    master: dict[str, Any], directors: Directors
) -> None:
    for held_by in (["lb1"], ["lb1", "lb2"], ["lb1", "lb2"], ["lb2"], ["lb2"]):
        directors.say(*held_by)
        answer = run(master, "lvs.check_mastership", "lb1")
        assert answer["vips"][VIP]["holders"] == held_by
    assert [(tag, data["holders"]) for tag, data in directors.told] == [
        ("lvs/vips/prod/split_brain", ["lb1", "lb2"]),
        ("lvs/vips/prod/held", ["lb2"]),
    ]
    _, split = directors.told[0]
    assert split["told"].startswith("10.10.10.10 (VirtIP_10) is held by lb1 and lb2 at once")


@pytest.mark.usefixtures("keys")
def test_nobody_who_is_no_director_has_directors_asked(
    master: dict[str, Any], directors: Directors
) -> None:
    for minion_id in ("rs1", "*", "lb?", "../lb1", ["lb1"], "staging-rs2"):
        assert run(master, "lvs.check_mastership", minion_id)["asked"] == []
    assert directors.asked == []


COVERED = {"asked": [], "cluster": "prod", "why": "another look covers this one"}


class Clock:
    """Time that passes where somebody sleeps, on every clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_800_000_000.0
        for name in ("time", "monotonic"):
            monkeypatch.setattr(time, name, lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def stamp(self) -> str:
        """The time as Salt stamps it on an event."""
        return datetime.fromtimestamp(self.now, timezone.utc).isoformat()


@pytest.mark.usefixtures("keys")
def test_events_that_came_before_a_look_are_covered_by_it_however_late_they_are(
    master: dict[str, Any], directors: Directors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "SECONDS_BETWEEN", 5.0)
    clock = Clock(monkeypatch)
    directors.say("lb1")
    early = clock.stamp()
    clock.sleep(0.1)
    assert "told" in run(master, "lvs.check_mastership", "lb1", clock.stamp())
    late = clock.stamp()
    for _ in range(5):
        clock.sleep(8)
        assert run(master, "lvs.check_mastership", "lb1", early) == COVERED
    assert len(directors.asked) == 1
    assert "told" in run(master, "lvs.check_mastership", "lb1", late)
    assert run(master, "lvs.check_mastership", "lb1", late) == COVERED
    assert len(directors.asked) == 2


@pytest.mark.usefixtures("keys")
def test_of_one_cluster_one_look_is_at_work_and_one_waits(
    master: dict[str, Any], directors: Directors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "WAIT_SECONDS", 0.1)
    # As if they were Salt's own threads, which load a runner each.
    runs = [salt.runner.RunnerClient(master).functions for _ in range(6)]
    directors.say("lb1")
    free, at_work = threading.Event(), []
    answer = directors.cmd_iter_no_block

    def slowly(*arguments: Any, **options: Any) -> Iterator[Any]:
        at_work.append(1)
        assert free.wait(60)
        assert at_work.pop()
        return answer(*arguments, **options)

    monkeypatch.setattr(directors, "cmd_iter_no_block", slowly)
    with ThreadPoolExecutor(len(runs)) as pool:
        try:
            jobs = [pool.submit(runs[0]["lvs.check_mastership"], "lb1")]
            until(lambda: at_work, "the first to look")
            jobs += [pool.submit(one["lvs.check_mastership"], "lb1") for one in runs[1:]]
            until(lambda: sum(job.done() for job in jobs) == 4, "all but two to be done")
            assert [job.result() for job in jobs if job.done()] == [COVERED] * 4
            assert at_work == [1]
        finally:
            free.set()
        told = [job.result() for job in jobs]
    assert sum("told" in answer for answer in told) == len(directors.asked) == 2


@pytest.mark.usefixtures("keys")
def test_what_a_look_saw_is_there_for_the_reactor(
    master: dict[str, Any], directors: Directors
) -> None:
    directors.say("lb2")
    run(master, "lvs.check_mastership", "lb1")
    path = Path(master["cachedir"]) / "saltext-lvs" / "seen.json"
    seen = json.loads(path.read_text())
    assert {name: (one["vips"], one["held"]) for name, one in seen.items()} == {
        "lb1": ([VIP], []),
        "lb2": ([VIP], [VIP]),
    }
    assert all(abs(one["at"] - time.time()) < 30 for one in seen.values())


def test_the_master_answers_what_the_shipped_configuration_says() -> None:
    text = (CHECKOUT / "lvs" / "files" / "master.conf").read_text(encoding="utf-8")
    bound = {tag: files for item in yaml.safe_load(text)["reactor"] for tag, files in item.items()}
    assert bound == {
        "salt/beacon/*/dummy/change": ["salt://_reactors/dummy_lost.sls"],
        "salt/beacon/*/keepalived_vrrp/change": ["salt://_reactors/vrrp_transition.sls"],
        "salt/beacon/*/keepalived_vrrp/state": ["salt://_reactors/vrrp_transition.sls"],
        "salt/beacon/*/real_server/change": ["salt://_reactors/real_server.sls"],
        "salt/minion/*/start": ["salt://_reactors/minion_start.sls"],
        "lvs/vips/*/held": ["salt://_reactors/split_brain.sls"],
    }
    for files in bound.values():
        for name in files:
            path = CHECKOUT / name.removeprefix("salt://")
            assert path.read_text(encoding="utf-8").startswith("#!py\n")
