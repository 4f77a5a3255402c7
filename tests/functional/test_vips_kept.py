"""The state that has systemd-networkd leave a director's VIPs alone, under Salt's own loader."""

from __future__ import annotations

from pathlib import Path

import pytest
from saltext.lvs import boot, description, networkd, wishes

from tests.functional.conftest import MinionMaker, example


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose eth0 is systemd-networkd's: the folder of its files."""
    folder, links, numbers = (tmp_path / name for name in ("network", "links", "numbers"))
    (numbers / "eth0").mkdir(parents=True)
    (numbers / "eth0" / "ifindex").write_text("2\n")
    folder.mkdir()
    links.mkdir()
    (folder / "10-eth0.network").write_text("[Match]\nName=eth0\n")
    (links / "2").write_text(f"ADMIN_STATE=configured\nNETWORK_FILE={folder}/10-eth0.network\n")
    monkeypatch.setattr(networkd, "FOLDERS", (str(folder),))
    monkeypatch.setattr(networkd, "LINKS", str(links))
    monkeypatch.setattr(networkd, "NUMBERS", str(numbers))
    return folder


@pytest.fixture
def boots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that boots with systemd: the folder of what a boot goes by."""
    root = tmp_path / "boot"
    root.mkdir()
    monkeypatch.setattr(boot, "SYSTEMD", str(root))
    monkeypatch.setattr(boot, "RULES", str(root / "ipvs.rules"))
    monkeypatch.setattr(boot, "UNIT", str(root / "ipvs.service"))
    monkeypatch.setattr(boot, "WANTED", str(root / "wants" / "ipvs.service"))
    monkeypatch.setattr(boot, "INIT_SCRIPT", str(root / "init.d"))
    monkeypatch.setattr(boot, "STARTS", str(root / "S??ipvs"))
    monkeypatch.setattr(description, "PATH", str(tmp_path / "kept" / "cluster.json"))
    monkeypatch.setattr(wishes, "WISHES", str(tmp_path / "wishes" / "wishes.json"))
    return root


RIGHT = {
    "name": "vips",
    "result": True,
    "changes": {},
    "comment": "systemd-networkd takes no VIP away.",
}


def test_the_state_does_what_its_test_said_and_no_more(minion: MinionMaker, network: Path) -> None:
    lb1 = minion("lb1")
    path = network / "10-eth0.network.d" / "50-saltext-lvs.conf"
    text = networkd.file_of("10-eth0.network").text
    added = "".join(f"+{line}\n" for line in text.splitlines())
    changes = {str(path): {"diff": f"--- /dev/null\n+++ {path}\n@@ -0,0 +1,4 @@\n{added}"}}
    tested = lb1.state("keepalived.vips_kept", "vips", test=True)
    assert tested == {
        "name": "vips",
        "result": None,
        "changes": changes,
        "comment": f"The files for systemd-networkd would be changed:\n- write {path}",
    }
    assert not path.exists()
    done = lb1.state("keepalived.vips_kept", "vips")
    assert done == {
        "name": "vips",
        "result": True,
        "changes": changes,
        "comment": f"The files for systemd-networkd were changed:\n- write {path}",
    }
    assert path.read_text() == text
    for test in (True, False):
        assert lb1.state("keepalived.vips_kept", "vips", test=test) == RIGHT


UNDECIDED = (
    "Beware: systemd-networkd has not decided about eth0 yet, or eth0 is away; it may take VIPs "
    "away there. Apply this again."
)


@pytest.mark.parametrize("test", [True, False], ids=["asked", "done"])
def test_the_state_says_where_nobody_knows_whether_vips_stay(
    minion: MinionMaker, network: Path, test: bool
) -> None:
    lb1 = minion("lb1")
    (network.parent / "links" / "2").write_text("ADMIN_STATE=pending\n")
    told = {"operations": [], "changes": {}, "unknown": ["eth0"]}
    assert lb1.call("keepalived.plan_keep_vips") == told
    assert lb1.call("keepalived.keep_vips") == told
    state = lb1.state("keepalived.vips_kept", "vips", test=test)
    assert state == {**RIGHT, "comment": UNDECIDED}
    assert [entry.name for entry in network.iterdir()] == ["10-eth0.network"]


def test_what_is_known_is_written_where_another_interface_is_away(
    minion: MinionMaker, network: Path
) -> None:
    pillar = example("production")
    instances = pillar["lvs"]["vrrp_instances"]
    instances["OTHER"] = {
        **instances["VirtIP_10"],
        "interface": "eth9",
        "virtual_router_id": 99,
        "virtual_ipaddress": ["10.10.10.99"],
    }
    pillar["lvs_secrets"]["vrrp_instances"]["OTHER"] = {"auth_pass": "OTHER_PW"}
    done = minion("lb1", pillar).state("keepalived.vips_kept", "vips")
    path = network / "10-eth0.network.d" / "50-saltext-lvs.conf"
    assert done["result"] is True
    assert done["comment"] == (
        f"The files for systemd-networkd were changed:\n- write {path}\n"
        + UNDECIDED.replace("eth0", "eth9")
    )


def test_who_is_no_director_any_more_keeps_nothing_of_it(
    minion: MinionMaker, network: Path
) -> None:
    minion("lb1").call("keepalived.keep_vips")
    path = network / "10-eth0.network.d" / "50-saltext-lvs.conf"
    former = minion("rs1")
    assert former.call("keepalived.plan_keep_vips")["operations"] == [f"remove {path}"]
    assert former.call("keepalived.keep_vips")["operations"] == [f"remove {path}"]
    assert [entry.name for entry in network.iterdir()] == ["10-eth0.network"]


@pytest.mark.parametrize("minion_id", ["rs1", "elsewhere"])
def test_the_formula_takes_it_from_a_former_director(
    minion: MinionMaker, network: Path, minion_id: str
) -> None:
    lb1 = minion("lb1")
    lb1.call("keepalived.keep_vips")
    assert lb1.call("lvs.view")["was_director"] is False
    former = minion(minion_id)
    assert former.call("lvs.view")["was_director"] is True
    chunks = former.call("state.show_low_sls", "lvs")
    ids = [chunk["__id__"] for chunk in chunks if chunk["fun"] == "vips_kept"]
    assert ids == ["lvs-former-director-vips"]
    assert former.state("keepalived.vips_kept", "vips")["result"] is True
    assert former.call("lvs.view")["was_director"] is False


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize("minion_id", ["rs1", "elsewhere"])
def test_no_boot_gives_a_former_director_its_table_again(
    minion: MinionMaker, boots: Path, minion_id: str
) -> None:
    lb1 = minion("lb1")
    lb1.call("ipvs.at_boot")
    assert sorted(path.name for path in boots.iterdir()) == ["ipvs.rules", "ipvs.service", "wants"]
    assert lb1.call("lvs.view")["was_director"] is False
    former = minion(minion_id)
    assert former.call("lvs.view")["was_director"] is True
    chunks = former.call("state.show_low_sls", "lvs")
    ids = {chunk["__id__"]: chunk["state"] for chunk in chunks if chunk["fun"] == "at_boot"}
    assert ids == {"lvs-former-director-at-boot": "ipvs"}
    assert former.state("ipvs.at_boot", "boot")["result"] is True
    assert [path for path in boots.rglob("*") if not path.is_dir()] == []
    assert former.call("lvs.view")["was_director"] is False


def test_a_wrong_pillar_fails_the_state(minion: MinionMaker) -> None:
    pillar = example("production")
    pillar["lvs"]["vrrp_instances"]["VirtIP_10"]["advert_int"] = 0
    failed = minion("lb1", pillar).state("keepalived.vips_kept", "vips")
    assert failed["result"] is False
    assert "lvs:vrrp_instances:VirtIP_10:advert_int is 0" in failed["comment"]
