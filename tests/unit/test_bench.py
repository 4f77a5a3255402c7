"""The benchmark's own logic: rows, ratios, goals, its file, and the tables that it measures."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from saltext.lvs import model

from tests.bench import gaps, plot, realserver, reloading, results, suite, tables
from tests.bench.big import Kept
from tests.bench.realserver import Load
from tests.bench.results import Goal, Numbers, Result, at_most, faster, within_floor
from tests.bench.suite import Point, Samples
from tests.bench.tables import Size, Table

SIZE = Size(2, 60)
LOAD = Load(2, 40)
PROC = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A0A000B:0050 wlc  
  -> 0A800064:0050      Route   200    0          0         
TCP  0A0A000A:0050 wlc  
  -> 0A800001:0050      Route   2      0          0         
  -> 0AC00000:1F90      Route   1      0          0         
"""  # noqa: W291 - as the kernel writes it


def test_a_result_has_exactly_the_files_fields_with_ratios_of_ours_to_the_others() -> None:
    row = results.result("create", "ms", Numbers(50, peer=1000, floor=25), faster(10, "ipvsadm"))
    assert row == Result(
        name="create",
        unit="ms",
        ours=50,
        peer=1000,
        floor=25,
        ratio_to_peer=0.05,
        ratio_to_floor=2,
        goal="at least 10 times faster than ipvsadm",
        met=True,
    )


def test_what_does_not_apply_is_none() -> None:
    assert results.result("read", "ms", Numbers(50)) == Result(
        "read", "ms", 50, None, None, None, None, None, None
    )


@pytest.mark.parametrize(
    ("goal", "numbers", "met"),
    [
        pytest.param(faster(10, "it"), Numbers(10, peer=100), True, id="just ten times faster"),
        pytest.param(faster(10, "it"), Numbers(10, peer=99), False, id="not quite ten times"),
        pytest.param(faster(10, "it"), Numbers(10), False, id="faster than what was not measured"),
        pytest.param(within_floor(3), Numbers(30, floor=10), True, id="just three times the floor"),
        pytest.param(within_floor(3), Numbers(31, floor=10), False, id="above that"),
        pytest.param(within_floor(3), Numbers(31), False, id="a floor that was not measured"),
        pytest.param(at_most(60, "60 MB"), Numbers(60), True, id="just the limit"),
        pytest.param(at_most(60, "60 MB"), Numbers(60.1), False, id="above the limit"),
    ],
)
def test_a_goal_is_met_up_to_its_limit(goal: Goal, numbers: Numbers, met: bool) -> None:
    assert results.result("x", "ms", numbers, goal).met is met


def test_of_two_goals_both_must_be_met_and_both_are_told() -> None:
    row = results.result("x", "ms", Numbers(10, 100, 3), faster(10, "it"), within_floor(3))
    assert (row.goal, row.met) == (
        "at least 10 times faster than it and at most 3 times the floor",
        False,
    )
    assert results.missed([row, results.result("y", "ms", Numbers(1))]) == [row]


def test_the_file_is_a_list_of_objects_and_a_part_keeps_what_others_measured(
    tmp_path: Path,
) -> None:
    path = tmp_path / "build" / "bench.json"
    first = [results.result("a", "ms", Numbers(1.23456)), results.result("b", "MB", Numbers(2))]
    results.write(path, first)
    results.write(path, [results.result("b", "MB", Numbers(3), at_most(2, "2 MB"))], keep=True)
    null = {"peer": None, "floor": None, "ratio_to_peer": None, "ratio_to_floor": None}
    assert json.loads(path.read_text()) == [
        {"name": "a", "unit": "ms", "ours": 1.2346, **null, "goal": None, "met": None},
        {"name": "b", "unit": "MB", "ours": 3, **null, "goal": "at most 2 MB", "met": False},
    ]
    results.write(path, first[:1])
    assert [row["name"] for row in json.loads(path.read_text())] == ["a"]
    assert [file.name for file in path.parent.iterdir()] == ["bench.json"]


def test_people_get_a_line_for_each_result() -> None:
    rows = [
        results.result("create", "ms", Numbers(87.654, 1234.5, 43.21), faster(10, "ipvsadm -R")),
        results.result("memory", "MB", Numbers(61), at_most(60, "60 MB")),
        results.result("read", "ms", Numbers(0.01234)),
    ]
    assert results.table(rows) == (
        "                 ours      peer     floor   of peer  of floor  goal\n"
        "create (ms)      87.7     1,234      43.2    0.0710      2.03"
        "  met: at least 10 times faster than ipvsadm -R\n"
        "memory (MB)      61.0         -         -         -         -  MISSED: at most 60 MB\n"
        "read (ms)      0.0123         -         -         -         -"
    )


def test_a_page_gets_the_results_between_its_marks() -> None:
    rows = [
        results.result("create", "ms", Numbers(50, 1000, 25), within_floor(3)),
        results.result("memory", "MB", Numbers(61), at_most(60, "60 MB")),
        results.result("read", "ms", Numbers(5)),
    ]
    page = f"# Title\n{results.PAGE_START}\nold\n{results.PAGE_END}\nEnd\n"
    assert results.into_page(page, results.markdown(rows)) == (
        f"# Title\n{results.PAGE_START}\n"
        "|  | unit | ours | peer | ours / peer | floor | ours / floor | goal |\n"
        "| --- | --- | --: | --: | --: | --: | --: | --- |\n"
        "| create | ms | 50.0 | 1,000 | 0.0500 | 25.0 | 2.00 | at most 3 times the floor: met |\n"
        "| memory | MB | 61.0 | - | - | - | - | at most 60 MB: missed |\n"
        "| read | ms | 5.00 | - | - | - | - |  |\n"
        f"{results.PAGE_END}\nEnd\n"
    )
    with pytest.raises(ValueError, match="the page has no"):
        results.into_page("# Title\n", "text")


@pytest.mark.parametrize(
    ("disturbed", "words"),
    [
        pytest.param(2, "", id="one job in ten is no matter"),
        pytest.param(3, "this machine was busy: 3 of 20 jobs were disturbed", id="more are"),
    ],
)
def test_a_busy_machine_is_told_of(disturbed: int, words: str) -> None:
    samples = Samples()
    for number in range(20):
        samples.add(("read", SIZE), {"read": 1}, disturbed=number < disturbed)
    assert samples.warning() == words


@pytest.mark.parametrize(
    ("slow", "patience", "taken"),
    [
        pytest.param([False, False], 90, ({"read": 1}, False), id="undisturbed it is run once"),
        pytest.param(
            [True, False, False, False], 90, ({"read": 2}, False), id="slow before: run again"
        ),
        pytest.param(
            [False, True, False, False], 90, ({"read": 2}, False), id="slow after: run again"
        ),
        pytest.param([False, True], 0, ({"read": 1}, True), id="without patience it is kept"),
    ],
)
def test_a_disturbed_job_is_run_again_as_long_as_patience_lasts(
    monkeypatch: pytest.MonkeyPatch,
    slow: list[bool],
    patience: int,
    taken: tuple[dict[str, float], bool],
) -> None:
    runs = itertools.count(1)
    monkeypatch.setattr(suite, "PATIENCE_SECONDS", patience)
    pace = suite.Pace()
    monkeypatch.setattr(pace, "is_slow", lambda: slow.pop(0))
    assert pace.undisturbed(lambda: {"read": next(runs)}) == taken
    assert slow == []


def test_a_median_is_of_the_rounds_and_of_steps_added_up_within_each() -> None:
    samples = Samples()
    for listed, changed in ((1, 30), (5, 10), (2, 20)):
        samples.add(("ipvsadm", SIZE), {"list": listed, "weights": changed})
    assert samples.median("ipvsadm", SIZE, "list") == 2
    assert samples.median("ipvsadm", SIZE, "list", "weights") == 22


def test_what_one_job_measures_several_times_counts_each_time() -> None:
    samples = Samples()
    for first in (0, 50):
        samples.add(("local", LOAD), {"queued": list(range(first, first + 50))})
    assert samples.all("local", LOAD, "queued") == list(range(100))
    assert samples.median("local", LOAD, "queued") == 49.5
    assert samples.percentile(99, "local", LOAD, "queued") == pytest.approx(98.01)


def test_a_real_server_is_judged_by_the_median_and_by_the_worst_of_a_hundred() -> None:
    samples = Samples()
    samples.add(("reactor", realserver.LOST), {"queued": [1.0] * 98 + [20.0, 20.0]})
    samples.add(("local", realserver.LOST), {"queued": [2.0] * 100, "back": [21.0]})
    found = {row.name: (row.ours, row.goal, row.met) for row in realserver.lost(samples)}
    assert found == {
        "dummy0 deleted, until the event is queued (reaction: local), median": (
            (2.0, "at most 4 ms", True)
        ),
        "dummy0 deleted, until the event is queued (reaction: local), 99th percentile": (
            (2.0, "at most 15 ms", True)
        ),
        "dummy0 deleted, until the event is queued (reaction: reactor), median": (
            (1.0, "at most 4 ms", True)
        ),
        "dummy0 deleted, until the event is queued (reaction: reactor), 99th percentile": (
            (20.0, "at most 15 ms", False)
        ),
        "dummy0 deleted, until it is put back locally, median": (21.0, "at most 20 ms", False),
    }


def test_many_vips_stand_beside_one_ip_each_and_beside_a_batch() -> None:
    samples = Samples()
    for job, create in (("many", 500), ("ip -batch", 50)):
        samples.add((job, realserver.MANY), {"create": create, "nothing": 20})
    samples.add(("one ip each", realserver.FEW), {"create": 100, "nothing": 80})
    found = [(row.ours, row.peer, row.goal, row.met) for row in realserver.many(samples)]
    assert found == [
        (500, 50, "at most 1 s", True),
        (500, 1000, None, None),
        (20, 20, "at most 250 ms", True),
        (20, 800, None, None),
    ]


def test_a_reload_may_cost_nothing_and_the_worst_of_all_reloads_counts() -> None:
    samples = Samples()
    samples.add(reloading.LIBRARY, {"render": 600, "check": 700})
    samples.add(reloading.SALT, {"plan": 2100})
    for failed, pause in ((0, 1010), (1, 1020)):
        samples.add(
            reloading.RELOAD,
            {
                "apply": 3000,
                "failed": failed,
                "gap": 60,
                "lost": 0,
                "other masters": 0,
                "pause": pause,
            },
        )
    assert [(row.ours, row.goal, row.met) for row in reloading.results(samples)] == [
        (1300, "at most 2 s", True),
        (2100, "at most 2 s", False),
        (3000, None, None),
        (1, "at most none", False),
        (0, "at most none", True),
        (0, "at most none", True),
        (1020, "at most 3 s", True),
        (60, "at most 1 s", True),
    ]


@pytest.mark.parametrize(
    ("ours", "plain", "met"),
    [
        pytest.param(880, 800, True, id="just within noise"),
        pytest.param(890, 800, False, id="longer"),
        pytest.param(60, 21, True, id="of a short gap some milliseconds are noise"),
        pytest.param(62, 21, False, id="more of them are not"),
    ],
)
def test_a_gap_may_not_be_longer_than_that_of_keepalived_alone(
    ours: int, plain: int, met: bool
) -> None:
    samples = Samples()
    for side, gap in (("ours", ours), ("plain", plain)):
        for kind in gaps.KINDS:
            steps = {"gap": gap, "gap of theirs": gap, "back of theirs": 20, "failed": 0}
            samples.add(gaps.job(kind, side), steps)
    met_by_name = {row.name: row.met for row in gaps.results(samples)}
    assert list(met_by_name.values()) == [met, met, True, True, met, True]


def test_a_large_cluster_is_one_that_the_pillar_allows_and_1_percent_of_it_changes() -> None:
    size = Kept(2, 5, 20)
    before, after = (model.from_pillar(size.pillar(reweighted=word)) for word in (False, True))
    assert size.virtual_servers == len(before.virtual_servers) == 10
    weights = [
        [share.weight for each in cluster.virtual_servers.values() for share in each.real_servers]
        for cluster in (before, after)
    ]
    assert len(weights[0]) == size.real_servers == 200
    assert sum(old != new for old, new in zip(*weights, strict=True)) == 2


def test_growth_is_from_the_smallest_table_to_the_largest() -> None:
    row = suite.growth([Point(1000, 8, 4), Point(10_000, 30, 5), Point(100_000, 10, 6)])
    assert row == Result(
        name="growth of the cost of a real server from 1,000 to 100,000",
        unit="times",
        ours=1.25,
        peer=None,
        floor=1.5,
        ratio_to_peer=None,
        ratio_to_floor=1.25 / 1.5,
        goal="at most 1.3 times",
        met=True,
    )


def test_one_real_server_in_a_hundred_is_changed_and_no_two_have_the_same_address() -> None:
    plain, other = Table(SIZE), Table(SIZE, reweighted=True)
    replaced = Table(SIZE, reweighted=True, replaced=True)
    assert set(other.rows()) - set(plain.rows()) == {
        ("10.10.0.10:80", "10.128.0.0:80", 200),
        ("10.10.0.11:80", "10.128.0.100:80", 200),
    }
    assert set(replaced.rows()) - set(other.rows()) == {
        ("10.10.0.10:80", "10.192.0.0:80", 200),
        ("10.10.0.11:80", "10.192.0.100:80", 200),
    }
    for table in (plain, other, replaced):
        assert len({server for _, server, _ in table.rows()}) == SIZE.real_servers == 120


def test_a_table_has_one_form_for_each_of_us() -> None:
    small = Table(Size(2, 1), reweighted=True)
    assert small.data() == {
        "tcp 10.10.0.10:80": {
            "scheduler": "wlc",
            "real_servers": {"10.128.0.0:80": {"forward": "direct", "weight": 200}},
        },
        "tcp 10.10.0.11:80": {
            "scheduler": "wlc",
            "real_servers": {"10.128.0.1:80": {"forward": "direct", "weight": 2}},
        },
    }
    assert small.rules() == (
        "-A -t 10.10.0.10:80 -s wlc\n"
        "-a -t 10.10.0.10:80 -r 10.128.0.0:80 -g -w 200\n"
        "-A -t 10.10.0.11:80 -s wlc\n"
        "-a -t 10.10.0.11:80 -r 10.128.0.1:80 -g -w 2\n"
    )
    assert tables.weight_rules(Size(2, 1)) == "-e -t 10.10.0.10:80 -r 10.128.0.0:80 -g -w 200\n"
    assert tables.replacement_rules(Size(2, 1)) == (
        "-a -t 10.10.0.10:80 -r 10.192.0.0:80 -g -w 200\n-d -t 10.10.0.10:80 -r 10.128.0.0:80\n"
    )


def test_the_kernels_word_is_read_whole_and_in_order(tmp_path: Path) -> None:
    proc = tmp_path / "ip_vs"
    proc.write_text(PROC)
    assert tables.kernels(proc) == [
        ("10.10.0.10:80", "10.128.0.1:80", 2),
        ("10.10.0.10:80", "10.192.0.0:8080", 1),
        ("10.10.0.11:80", "10.128.0.100:80", 200),
    ]


def test_the_curve_is_drawn_as_a_png(tmp_path: Path) -> None:
    picture = tmp_path / "images" / "curve.png"
    plot.draw([Point(1000, 15, 5), Point(100_000, 16, 6)], picture)
    assert picture.read_bytes().startswith(b"\x89PNG\r\n")


def test_losses_are_drawn_as_a_png(tmp_path: Path) -> None:
    picture = tmp_path / "images" / "losses.png"
    plot.draw_losses({"event queued": [2.0, 1.5, 9.0], "put back": [450.0]}, picture)
    assert picture.read_bytes().startswith(b"\x89PNG\r\n")
