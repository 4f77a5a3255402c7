"""One job on keepalived's configuration, in a process of its own.

``python -m tests.bench.configuring JOB VIPS PORTS REAL_SERVERS_EACH`` prints the milliseconds of
each step of the job as a JSON object. The jobs of ``JOBS`` run in a network of their own; with a
director's name behind it, a job of ``ON_DIRECTOR`` runs in that, on its keepalived.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.big import Kept
from tests.bench.worker import timed
from tests.lab import namespaces

CHECKOUT = Path(__file__).resolve().parents[2]
TEMPLATE = CHECKOUT / "lvs/files/keepalived.conf.jinja"
DIRECTOR = "lb1"
SMALL = Kept(1, 1, 1)

Steps = dict[str, float]


def main() -> None:
    """Do the job that the command line names, and print its steps."""
    name, *numbers = sys.argv[1:5]
    size = Kept(*map(int, numbers))
    if sys.argv[5:]:
        steps = ON_DIRECTOR[name](size, sys.argv[5])
    else:
        with namespaces.own_network():
            _card()
            steps = JOBS[name](size)
    json.dump(steps, sys.stdout)


def _card() -> None:
    from tests.bench.watching import ip

    ip("link add eth0 type veth peer name far")
    ip("address add 10.10.10.11/24 dev eth0")
    ip("link set far up")
    ip("link set eth0 up")


def library(size: Kept) -> Steps:
    """From the pillar to a file that keepalived has nothing against, by the library's functions."""
    from saltext.lvs import keepalived, model

    template = TEMPLATE.read_text()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "keepalived.conf")

        def render(pillar: dict[str, Any]) -> None:
            text = keepalived.render(model.from_pillar(pillar), DIRECTOR, template)
            path.write_text(text)

        def check() -> None:
            problems = keepalived.check(str(path))
            if problems:
                raise SystemExit(f"keepalived refuses it: {problems[:3]}")

        render(SMALL.pillar())
        check()
        pillar = size.pillar()
        return {"render": timed(lambda: render(pillar)), "check": timed(check)}


def salt(size: Kept) -> Steps:
    """The same as Salt's function does it, with the comparison of the files."""
    call = _salt(SMALL.pillar())
    call["keepalived.plan_config"]()
    call = _salt(size.pillar())
    answers: list[Any] = []
    took = timed(lambda: answers.append(call["keepalived.plan_config"]()))
    (answer,) = answers
    if answer["problems"] or not answer["checked"]:
        raise SystemExit(f"keepalived refuses it: {answer['problems'][:3]}")
    return {"plan": took}


def _apply(size: Kept, director: str, *, reweighted: bool) -> Steps:
    """Write the configuration, and reload keepalived if it runs."""
    call = _salt(size.pillar(reweighted=reweighted), director)
    call["keepalived.version"]()
    answers: list[Any] = []
    took = timed(lambda: answers.append(call["keepalived.apply_config"]()))
    (answer,) = answers
    wrong = [word for word in ("problems", "failures", "restart") if answer[word]]
    if wrong or not answer["changes"]:
        raise SystemExit(f"it did not apply: {[answer[word] for word in wrong]}")
    return {"apply": took}


def _salt(pillar: dict[str, Any], minion_id: str = DIRECTOR) -> Any:
    """Salt's functions as a director has them."""
    import salt.config
    import salt.loader

    opts = salt.config.minion_config(None)
    opts.update(
        id=minion_id,
        file_client="local",
        file_roots={"base": [str(CHECKOUT)]},
        module_dirs=[str(CHECKOUT)],
        enable_fqdns_grains=False,
        enable_gpu_grains=False,
    )
    opts["grains"] = salt.loader.grains(opts)
    opts["pillar"] = pillar
    return salt.loader.minion_mods(opts)


JOBS: dict[str, Callable[[Kept], Steps]] = {"library": library, "salt": salt}
ON_DIRECTOR: dict[str, Callable[[Kept, str], Steps]] = {
    "plain": partial(_apply, reweighted=False),
    "reweighted": partial(_apply, reweighted=True),
}


if __name__ == "__main__":
    main()
