"""The names that Salt had until 3007, on a kernel without IPVS: signatures, and what is refused."""

from __future__ import annotations

import importlib.util
import inspect
import os
from pathlib import Path
from typing import Any

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

from tests.functional.conftest import Minion, MinionMaker, example

# As in Salt 3007: arguments with their defaults, and whether any others are taken.
SERVICE: dict[str, Any] = {"protocol": None, "service_address": None}
SERVER: dict[str, Any] = {**SERVICE, "server_address": None}
FUNCTIONS: dict[str, tuple[dict[str, Any], bool]] = {
    "lvs.add_service": ({**SERVICE, "scheduler": "wlc"}, False),
    "lvs.edit_service": ({**SERVICE, "scheduler": None}, False),
    "lvs.delete_service": (SERVICE, False),
    "lvs.add_server": ({**SERVER, "packet_forward_method": "dr", "weight": 1}, True),
    "lvs.edit_server": ({**SERVER, "packet_forward_method": None, "weight": None}, True),
    "lvs.delete_server": (SERVER, False),
    "lvs.clear": ({}, False),
    "lvs.get_rules": ({}, False),
    "lvs.list": (SERVICE, False),
    "lvs.zero": (SERVICE, False),
    "lvs.check_service": (SERVICE, True),
    "lvs.check_server": (SERVER, True),
}
REQUIRED = inspect.Parameter.empty
NAME = {"name": REQUIRED}
STATES: dict[str, tuple[dict[str, Any], bool]] = {
    "lvs_service.present": ({**NAME, **SERVICE, "scheduler": "wlc"}, False),
    "lvs_service.absent": ({**NAME, **SERVICE}, False),
    "lvs_server.present": (
        {**NAME, **SERVER, "packet_forward_method": "dr", "weight": 1},
        False,
    ),
    "lvs_server.absent": ({**NAME, **SERVER}, False),
}
WEB = {"protocol": "tcp", "service_address": "10.10.10.10:80"}
RS1 = {**WEB, "server_address": "10.10.10.41:80"}


# In their order: each argument and its default; and whether any others are taken.
Arguments = tuple[list[tuple[str, Any]], bool]


def in_order(expected: dict[str, tuple[dict[str, Any], bool]]) -> dict[str, Arguments]:
    return {name: (list(named.items()), others) for name, (named, others) in expected.items()}


def seen_by_salt(argspec: dict[str, Any]) -> Arguments:
    """The arguments that Salt finds in a function of ours."""
    names, defaults = argspec["args"] or [], list(argspec["defaults"] or ())
    padded = [REQUIRED] * (len(names) - len(defaults)) + defaults
    return list(zip(names, padded, strict=True)), bool(argspec["kwargs"])


def of_salts_own(kind: str, name: str) -> Arguments:
    module, _, function = name.partition(".")
    own = importlib.import_module(f"salt.{kind}.{module}")
    found = getattr(own, {"list": "list_"}.get(function, function))
    parameters = inspect.signature(found).parameters.values()
    named = [(p.name, p.default) for p in parameters if p.kind is not p.VAR_KEYWORD]
    return named, len(named) < len(parameters)


@pytest.fixture(scope="module")
def lb1(tmp_path_factory: pytest.TempPathFactory) -> Minion:
    """A minion without any pillar."""
    return Minion("lb1", {}, tmp_path_factory.mktemp("lb1"))


def test_the_functions_have_the_arguments_that_they_had(lb1: Minion) -> None:
    found = {name: lb1.call("sys.argspec", name)[name] for name in FUNCTIONS}
    assert {name: seen_by_salt(spec) for name, spec in found.items()} == in_order(FUNCTIONS)


def test_the_states_have_the_arguments_that_they_had(lb1: Minion) -> None:
    found = {name: lb1.call("sys.state_argspec", name)[name] for name in STATES}
    assert {name: seen_by_salt(spec) for name, spec in found.items()} == in_order(STATES)


@pytest.mark.skipif(
    importlib.util.find_spec("salt.modules.lvs") is None, reason="this Salt has no lvs of its own"
)
def test_those_are_the_arguments_of_salts_own() -> None:
    for kind, ours in (("modules", FUNCTIONS), ("states", STATES)):
        assert {name: of_salts_own(kind, name) for name in ours} == in_order(ours)


def test_neither_functions_nor_states_need_ipvsadm(
    minion: MinionMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = tmp_path / "bin"
    others.mkdir()
    for folder in os.get_exec_path():
        for program in Path(folder).glob("*"):
            if program.name != "ipvsadm" and not (others / program.name).is_symlink():
                (others / program.name).symlink_to(program)
    monkeypatch.setenv("PATH", str(others))
    without = minion("lb1", {})
    assert set(FUNCTIONS) <= set(without.call("sys.list_functions", "lvs"))
    assert set(STATES) <= set(without.call("sys.list_state_functions", "lvs_*"))


@pytest.mark.usefixtures("without_ipvs")
class TestWithoutIPVS:
    """The kernel has none loaded, so the table is empty."""

    def test_nothing_is_there(self, lb1: Minion) -> None:
        assert lb1.call("lvs.check_service", **WEB) is False
        assert lb1.call("lvs.check_server", **RS1) is False
        assert lb1.call("lvs.get_rules") == ""

    def test_nothing_has_to_go(self, lb1: Minion) -> None:
        assert lb1.call("lvs.clear") is True
        assert lb1.state("lvs_service.absent", "web", **WEB) == {
            "name": "web",
            "result": True,
            "changes": {},
            "comment": "LVS Service web is not present",
        }

    @pytest.mark.parametrize("function", ["lvs.list", "lvs.zero"])
    def test_what_cannot_be_shown_says_how_to_load_it(self, lb1: Minion, function: str) -> None:
        with pytest.raises(CommandExecutionError, match="load it with: modprobe ip_vs"):
            lb1.call(function)

    def test_test_mode_tells_what_would_be_made(self, lb1: Minion) -> None:
        assert lb1.state("lvs_service.present", "web", test=True, **WEB) == {
            "name": "web",
            "result": None,
            "changes": {"web": "Present"},
            "comment": "LVS Service web would be created",
        }
        assert lb1.state("lvs_server.present", "rs1", test=True, **RS1) == {
            "name": "rs1",
            "result": None,
            "changes": {"rs1": "Present"},
            "comment": "LVS Server rs1 in service 10.10.10.10:80(tcp) would be created",
        }


def test_what_keepalived_keeps_is_refused_before_the_kernel_is_asked(minion: MinionMaker) -> None:
    pillar = example("production")
    pillar["lvs"]["virtual_servers"]["web"]["managed_by"] = "keepalived"
    director = minion("lb1", pillar)
    with pytest.raises(CommandExecutionError) as caught:
        director.call("lvs.edit_service", scheduler="rr", **WEB)
    assert str(caught.value) == (
        "keepalived keeps tcp 10.10.10.10:80, as the pillar says: change it there; "
        "keepalived.set_weight sets the weight of a real server"
    )


def test_whether_it_may_be_changed_can_be_asked(minion: MinionMaker) -> None:
    pillar = example("production")
    pillar["lvs"]["virtual_servers"]["web"]["managed_by"] = "keepalived"
    director = minion("lb1", pillar)
    with pytest.raises(CommandExecutionError, match="^keepalived keeps tcp 10.10.10.10:80, as "):
        director.call("lvs.check_changeable", **WEB)
    assert director.call("lvs.check_changeable", "tcp", "10.10.10.10:8080") is True


def test_a_wrong_argument_is_refused_before_the_kernel_is_asked(lb1: Minion) -> None:
    with pytest.raises(SaltInvocationError) as caught:
        lb1.call("lvs.add_server", weight="ten", **RS1)
    assert str(caught.value) == "weight is 'ten'; it should be a whole number from 0 to 2147483647"
