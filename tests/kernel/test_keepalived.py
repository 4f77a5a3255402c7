"""The real keepalived: it accepts what we write, reads what we mean, and keeps running."""

from __future__ import annotations

import contextlib
import os
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from saltext.lvs import applying, errors, keepalived, model, program, rtnetlink
from saltext.lvs import running as daemons

from tests.golden.cases import TEMPLATE, Case, cases
from tests.kernel.commands import ip

PASSWORD = "MY_PASS"
SECONDS = 15


@pytest.fixture(autouse=True)
def cards(netns: None) -> None:
    """The network cards that the golden files name, with a cable to the other end."""
    for card in ("eth0", "ens3"):
        ip(f"link add {card} type veth peer name {card}-peer")
        ip(f"link set {card}-peer up")
        ip(f"link set {card} up")
    ip("address add 10.10.10.11/24 dev eth0")


def until(holds: Callable[[], object], what: str) -> None:
    """Wait until something holds, with a bound."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end, f"{what} did not come within {SECONDS} s"
        time.sleep(0.05)


# --------------------------------------------------------------------------------------------------
# What keepalived accepts


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_keepalived_has_nothing_against_a_golden_file(case: Case) -> None:
    assert keepalived.check(str(case.expected)) == ()


AS_ANOTHER_USER = """\
global_defs {{
    script_user daemon
    enable_script_security
    {also}
}}
vrrp_script look {{
    script "/bin/true"
}}
vrrp_instance V {{
    interface eth0
    virtual_router_id 1
    virtual_ipaddress {{
        10.10.10.10
    }}
}}
"""


@pytest.mark.parametrize(
    ("also", "said"),
    [("", ()), ("frobnicate", ("line 4 (frobnicate): Unknown keyword 'frobnicate'",))],
)
def test_scripts_of_another_user_do_not_end_the_look_at_a_file(
    tmp_path: Path, also: str, said: tuple[str, ...]
) -> None:
    file = tmp_path / "keepalived.conf"
    file.write_text(AS_ANOTHER_USER.format(also=also), encoding="utf-8")
    assert keepalived.check(str(file)) == said


def test_the_version_is_that_of_the_program() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", program.version())


# Those that need nothing to be said.
PLAIN_CHECKERS = ["TCP_CHECK", "SMTP_CHECK", "DNS_CHECK", "PING_CHECK", "UDP_CHECK"]
ADDRESSES = [f"10.10.10.{number}" for number in range(2, 250)]
times = st.integers(1, 3600) | st.floats(0.05, 3600, allow_nan=False).map(lambda n: round(n, 3))
names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.:@+-]{0,63}", fullmatch=True)


@st.composite
def pillars(draw: st.DrawFn) -> dict[str, Any]:
    """Pillars in which each thing that ends up in keepalived.conf takes every kind of value."""
    vips = draw(st.lists(st.sampled_from(ADDRESSES[:40]), min_size=1, max_size=25, unique=True))
    servers = draw(st.dictionaries(names, st.sampled_from(ADDRESSES[40:]), min_size=1, max_size=4))
    virtual_server = st.fixed_dictionaries(
        {
            "address": st.sampled_from(vips),
            "port": st.integers(1, 65535),
            "protocol": st.sampled_from([word.value for word in model.Protocol]),
            "scheduler": st.sampled_from([word.value for word in model.Scheduler]),
            "forward": st.sampled_from(["direct", "tunnel", "masq"]),
            "persistence": st.integers(0, model.MAX_PERSISTENCE_SECONDS),
            "managed_by": st.sampled_from(["salt", "keepalived"]),
            "on_failure": st.sampled_from(["drain", "remove"]),
            "check": st.fixed_dictionaries(
                {
                    "types": st.sampled_from([["tcp"], ["path"], ["path", "tcp"], []]),
                    "interval": times,
                    "connect_timeout": times,
                    "fall": st.integers(1, 100),
                }
            ),
            "real_servers": st.dictionaries(
                st.sampled_from(sorted(servers)),
                st.fixed_dictionaries(
                    {"weight": st.integers(0, model.MAX_WEIGHT)},
                    optional={
                        "checkers": st.lists(st.sampled_from(PLAIN_CHECKERS), max_size=2),
                        "inhibit_on_failure": st.booleans(),
                        "delay_loop": times,
                    },
                ),
            ),
        },
        optional={
            "quorum": st.integers(1, 5),
            "hysteresis": st.integers(0, 5),
            "alpha": st.booleans(),
            "retry": st.integers(0, 100),
            "warmup": times,
            "checkers": st.lists(st.sampled_from(PLAIN_CHECKERS), max_size=2),
            "sorry_server": st.just({"address": "10.10.10.251"}),
            "smtp_alert": st.booleans(),
        },
    )
    alerts = st.fixed_dictionaries(
        {
            "by": st.sampled_from(["salt", "keepalived"]),
            "notification_email": st.lists(st.just("noc+x@example.com"), min_size=1, max_size=3),
            "smtp_server": st.sampled_from(["localhost", "10.10.10.25", "fd00::25"]),
            "smtp_connect_timeout": st.integers(1, 3600),
        }
    )
    instance = {
        "interface": "eth0",
        "virtual_ipaddress": vips,
        **draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "version": st.sampled_from([2, 3]),
                    "nopreempt": st.booleans(),
                    "preempt_delay": st.sampled_from([0, 0.5, 1000]),
                    "garp_master_delay": st.integers(0, 60),
                    "lower_prio_no_advert": st.booleans(),
                    "virtual_ipaddress_excluded": st.just(["10.10.10.252", "fd00::252"]),
                    "smtp_alert": st.booleans(),
                    "track_interface": st.sampled_from([["ens3"], {"ens3": -253}, {"ens3": 0}]),
                },
            )
        ),
    }
    return {
        "lvs": {
            "name": draw(names),
            "directors": {
                "lb1": {
                    "router_id": draw(names),
                    "state": draw(st.sampled_from(["MASTER", "BACKUP"])),
                    "priority": draw(st.integers(1, model.MAX_PRIORITY)),
                    "address": "10.10.10.11",
                }
            },
            "real_servers": servers,
            "vrrp_instances": {
                "first": {
                    **instance,
                    "virtual_router_id": draw(st.integers(1, 255)),
                    "advert_int": draw(st.integers(1, 255) | st.just(0.25)),
                },
                "second": {
                    "interface": "ens3",
                    "virtual_router_id": draw(st.integers(1, 255)),
                    "advert_int": draw(st.integers(1, 40)),
                    "virtual_ipaddress": ["fd00::10"],
                },
            },
            "sync_daemon": {
                "interface": "eth0",
                "vrrp_instance": "first",
                "syncid": draw(st.integers(0, 255)),
            },
            "virtual_servers": draw(st.dictionaries(names, virtual_server, max_size=4)),
            "alerts": draw(alerts),
        },
        "lvs_secrets": {
            "vrrp_instances": {
                "first": {"auth_pass": draw(st.from_regex(model.AUTH_PASS, fullmatch=True))}
            }
        },
    }


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(pillar=pillars())
def test_keepalived_has_nothing_against_what_the_model_accepts(
    pillar: dict[str, Any], tmp_path: Path
) -> None:
    try:
        cluster = model.from_pillar(pillar)
    except errors.InvalidConfig:
        return
    path = tmp_path / "keepalived.conf"
    path.write_text(keepalived.render(cluster, "lb1", TEMPLATE))
    assert keepalived.check(str(path), keepalived.passwords(cluster)) == ()


# --------------------------------------------------------------------------------------------------
# What it refuses

GOOD = """\
global_defs {
    router_id lb1
}

vrrp_instance VirtIP_10 {
    interface eth0
    virtual_router_id 10
    priority 150
    authentication {
        auth_type PASS
        auth_pass "MY_PASS"
    }
    virtual_ipaddress {
        10.10.10.10/32 dev eth0
    }
}
"""
NOBODY = """\
virtual_server 10.10.10.10 80 {
    lvs_sched wlc
    lvs_method DR
    protocol TCP
    real_server 10.10.10.41 80 {
        weight 0
    }
}
"""
REFUSED: dict[str, tuple[str, str]] = {
    "a keyword that is none": (
        GOOD.replace("priority", "prioritty"),
        "line 8 (prioritty 150): Unknown keyword 'prioritty'",
    ),
    "a value out of range": (
        GOOD.replace("150", "256"),
        "line 8 (priority 256): number '256' outside range [1, 255]",
    ),
    "a card that is not there": (
        GOOD.replace("interface eth0", "interface eth7"),
        "line 6 (interface eth7): WARNING - interface eth7 for vrrp_instance VirtIP_10 doesn't "
        "exist",
    ),
    "a brace that is missing": (GOOD[:-2], "There are 1 missing '}'s or extra '{'s"),
    "a word without its value": (
        GOOD.replace("virtual_router_id 10", "virtual_router_id"),
        "line 7 (virtual_router_id): *** Configuration line starting `virtual_router_id` is "
        "missing a parameter after keyword `virtual_router_id` at word position 2",
    ),
    "a password that would be cut": (
        GOOD.replace(PASSWORD, f"{PASSWORD}_IS_LONG"),
        "line 11 (auth_pass **********): Truncating auth_pass to 8 characters",
    ),
    "a password that it cannot read": (
        GOOD.replace(PASSWORD, f"{PASSWORD}\\"),
        "line 11 (auth_pass **********): not as keepalived wants it",
    ),
    "a virtual server that has no weight": (
        NOBODY,
        "Warning - quorum 1 for [10.10.10.10]:tcp:80 exceeds total weight of real servers 0, "
        "reducing quorum to 0",
    ),
}


@pytest.mark.parametrize(("text", "complaint"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_wrong_is_refused_in_keepaliveds_words(
    text: str, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "keepalived.conf"
    path.write_text(text)
    complaints = keepalived.check(str(path))
    assert complaints[0] == complaint
    assert PASSWORD not in "\n".join(complaints)


def test_keepalived_passes_what_we_refuse(tmp_path: Path) -> None:
    executable = tmp_path / "executable.conf"
    executable.write_text("no such keyword\n")
    executable.chmod(0o700)
    empty = tmp_path / "empty.conf"
    empty.touch()
    unsynchronized = tmp_path / "unsynchronized.conf"
    unsynchronized.write_text(GOOD.replace("}\n", "    lvs_sync_daemon eth7 VirtIP_10\n}\n", 1))
    for path in (executable, empty, tmp_path / "missing.conf", unsynchronized):
        alone = subprocess.run(["keepalived", "-t", "-f", path], capture_output=True, check=False)
        assert alone.returncode == 0
        assert len(keepalived.check(str(path))) == 1


# --------------------------------------------------------------------------------------------------
# The running one


class Keepalived:
    """A keepalived in this network, with files of its own."""

    def __init__(self, folder: Path) -> None:
        self.conf = folder / "keepalived.conf"
        self.pid_file = folder / "keepalived.pid"
        self.dumps = folder / "dumps"
        self.dumps.mkdir()
        files = {"-p": "keepalived", "-r": "vrrp", "-c": "checkers", "-b": "bfd"}
        options = [word for key, name in files.items() for word in (key, f"{folder}/{name}.pid")]
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                ["keepalived", "-n", "-l", "-f", self.conf, *options],
                stdout=log,
                stderr=log,
                env={**os.environ, "TMPDIR": str(self.dumps)},
            )

    def stop(self) -> None:
        """End it, and its children with it."""
        self.process.terminate()
        self.process.wait(timeout=SECONDS)

    def dump(self) -> str:
        """What it says of itself."""
        kind = subprocess.run(
            ["keepalived", "--signum=DATA"], capture_output=True, text=True, check=True
        )
        # Its children are there only some time after the parent, and take no part before.
        until(lambda: self._dumped(int(kind.stdout)), "the dump")
        return (self.dumps / "keepalived.data").read_text()

    def _dumped(self, kind: int) -> bool:
        self.process.send_signal(kind)
        time.sleep(0.2)
        path = self.dumps / "keepalived.data"
        return path.exists() and "VRRP Instance" in path.read_text()


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Keepalived]:
    one = Keepalived(folder)
    try:
        until(lambda: daemons.process(str(one.pid_file)), "keepalived")
        yield one
    finally:
        one.stop()


def held() -> set[str]:
    """The addresses of this network."""
    return {str(item.address.ip) for link in rtnetlink.read_all() for item in link.addresses}


def test_a_refused_file_leaves_the_running_one_and_a_good_one_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "keepalived.conf"
    assert keepalived.apply(str(path), GOOD, [PASSWORD]).problems == ()
    with running(tmp_path) as daemon:
        until(lambda: "10.10.10.10" in held(), "the VIP")
        pid = daemons.process(str(daemon.pid_file))

        broken = GOOD.replace("interface eth0", "interface eth7")
        assert keepalived.apply(str(path), broken, [PASSWORD]).problems
        assert path.read_text() == GOOD
        path.write_text(broken)
        with pytest.raises(errors.CommandFailed, match="is not loaded:\nline 6 "):
            applying.reload(str(path), str(daemon.pid_file))

        more = GOOD.replace("    }\n}\n", "        10.10.10.12/32 dev eth0\n    }\n}\n")
        assert keepalived.apply(str(path), more, [PASSWORD]).problems == ()
        applying.reload(str(path), str(daemon.pid_file))
        until(lambda: "10.10.10.12" in held(), "the second VIP")
        assert "10.10.10.10" in held()
        assert daemons.process(str(daemon.pid_file)) == pid
    assert daemons.process(str(daemon.pid_file)) is None


def test_keepalived_reads_every_password_as_it_is(tmp_path: Path) -> None:
    pick = random.Random(2)
    characters = [chr(code) for code in range(0x21, 0x7F)]
    words = [*characters, *(f"a{one}b" for one in characters)]
    words += ["".join(pick.choices(characters, k=8)) for _ in range(200)]
    wanted = [word for word in words if re.fullmatch(model.AUTH_PASS, word)][:250]
    instance = {"interface": "eth0"}
    pillar = {
        "lvs": {
            "directors": ["lb1"],
            "vrrp_instances": {
                f"i{number}": {
                    **instance,
                    "virtual_router_id": number,
                    "virtual_ipaddress": [f"10.10.11.{number}"],
                }
                for number in range(1, len(wanted) + 1)
            },
        },
        "lvs_secrets": {
            "vrrp_instances": {
                f"i{number}": {"auth_pass": word} for number, word in enumerate(wanted, start=1)
            }
        },
    }
    path = tmp_path / "keepalived.conf"
    path.write_text(keepalived.render(model.from_pillar(pillar), "lb1", TEMPLATE))
    with running(tmp_path) as daemon:
        read = re.findall(r"^\s*Password = (.*)$", daemon.dump(), re.MULTILINE)
    assert read == wanted
