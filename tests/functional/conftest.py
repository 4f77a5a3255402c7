"""A minion without daemons: Salt's own loader and compilers on this checkout."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import salt.client
import salt.config
import yaml

CHECKOUT = Path(__file__).parents[2]
EXAMPLES = CHECKOUT / "pillar.example"


def example(environment: str) -> dict[str, Any]:
    """The pillar that a director of an example environment gets."""
    pillar: dict[str, Any] = {}
    for path in sorted((EXAMPLES / environment).glob("*.sls")):
        pillar.update(yaml.safe_load(path.read_text(encoding="utf-8")))
    return pillar


class Minion:
    """One minion with its pillar, as ``salt-call --local`` would have it."""

    def __init__(self, minion_id: str, pillar: dict[str, Any], root: Path) -> None:
        pillar_root = root / "pillar"
        pillar_root.mkdir(parents=True)
        (pillar_root / "top.sls").write_text("base: {'*': [cluster]}\n", encoding="utf-8")
        (pillar_root / "cluster.sls").write_text(yaml.safe_dump(pillar), encoding="utf-8")
        opts = salt.config.minion_config(None)
        opts.update(
            id=minion_id,
            file_client="local",
            root_dir=str(root),
            cachedir=str(root / "cache"),
            pki_dir=str(root / "pki"),
            sock_dir=str(root / "sock"),
            conf_file=str(root / "minion"),
            log_file=str(root / "log"),
            file_roots={"base": [str(CHECKOUT)]},
            pillar_roots={"base": [str(pillar_root)]},
            module_dirs=[str(CHECKOUT)],
            grains_cache=False,
            enable_fqdns_grains=False,
        )
        self.root = root
        self.caller = salt.client.Caller(mopts=opts)

    def call(self, function: str, *args: Any, **kwargs: Any) -> Any:
        """Call an execution function; its exceptions come through."""
        return self.caller.cmd(function, *args, **kwargs)

    def state(self, function: str, name: str, **kwargs: Any) -> dict[str, Any]:
        """Run one state through Salt's state compiler, and return its part of the answer."""
        answer = self.call("state.single", function, name=name, **kwargs)
        assert isinstance(answer, dict), answer
        (only,) = answer.values()
        return {key: only[key] for key in ("name", "result", "changes", "comment")}


MinionMaker = Callable[..., Minion]


@pytest.fixture
def minion(tmp_path: Path) -> MinionMaker:
    """Make a minion: ``minion("lb1")`` with the production example, or with a pillar of its own."""

    def make(minion_id: str = "lb1", pillar: dict[str, Any] | None = None) -> Minion:
        chosen = example("production") if pillar is None else pillar
        return Minion(minion_id, chosen, tmp_path / minion_id)

    return make


@pytest.fixture(autouse=True)
def quiet_shutdown() -> None:
    """Salt's own handlers write to streams that pytest has closed by then."""
    logging.raiseExceptions = False


@pytest.fixture
def without_ipvs() -> None:
    """For tests of a machine whose kernel has no IPVS loaded; one that has it runs the kernel
    level's.
    """
    if Path("/proc/thread-self/net/ip_vs").exists():
        pytest.skip("this machine's kernel has IPVS loaded")
