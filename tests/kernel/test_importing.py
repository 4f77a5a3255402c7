"""A keepalived.conf that was taken over means the same to keepalived as the one it comes from: its
own dumps are compared.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from saltext.lvs import adopting, fifos, importing, keepalived, model, trackfiles

from tests.golden.cases import TEMPLATE
from tests.kernel.commands import ip

SAMPLES = Path("/usr/share/doc/keepalived/samples")
ADOPTED = Path(__file__).parents[1] / "data" / "adopted"
SECONDS = 20
FILES = [*sorted(SAMPLES.glob("keepalived.conf.*")), *sorted(ADOPTED.iterdir())]


@pytest.fixture(autouse=True)
def director(netns: None) -> Iterator[None]:
    for card in ("eth0", "eth1", "eth2", "eth3", "eth0.1"):
        ip(f"link add {card} type veth peer name {card}-peer")
        ip(f"link set {card}-peer up")
        ip(f"link set {card} up")
    ip("address add 10.10.10.11/24 dev eth0")
    ip("address add fd00:10::11/64 dev eth0 nodad")
    ip("address add 10.20.0.11/24 dev eth1")
    yield
    for pipe in fifos.PATHS:
        Path(pipe).unlink(missing_ok=True)


def adopted(path: Path, folder: Path) -> model.Cluster:
    found = adopting.adopt(str(path), "lb1", config_id="lb1", secrets=str(folder / "secrets.sls"))
    pillar = found["pillar"]
    if found["secrets"]:
        pillar = importing.joined(pillar, yaml.safe_load(Path(found["secrets"]).read_text()))
    return model.from_pillar(pillar)


def prepare(cluster: model.Cluster) -> None:
    """Make the files that the state makes before keepalived starts."""
    Path(fifos.FOLDER).mkdir(parents=True, exist_ok=True)
    for name, config in cluster.virtual_servers.items():
        for share in config.real_servers:
            weight = Path(trackfiles.path(name, share.name))
            weight.parent.mkdir(parents=True, exist_ok=True)
            weight.write_text("0\n")


def dumped(text: str, folder: Path) -> list[str]:
    """What keepalived's processes say that they have read."""
    shutil.rmtree(folder / "dumps", ignore_errors=True)
    (folder / "dumps").mkdir()
    conf, log = folder / "keepalived.conf", folder / "log"
    conf.write_text(text)
    names = {"-p": "keepalived", "-r": "vrrp", "-c": "checkers", "-b": "bfd"}
    files = [word for flag, name in names.items() for word in (flag, f"{folder}/{name}.pid")]
    with log.open("w") as output:
        process = subprocess.Popen(
            ["keepalived", "-n", "-l", "-G", "-i", "lb1", "-f", str(conf), *files],
            stdout=output,
            stderr=output,
            env={**os.environ, "TMPDIR": str(folder / "dumps")},
        )
    try:
        wait_until_started(log)
        wait_until_quiet(log)
        process.send_signal(signal.SIGUSR1)
        wait_until_quiet(*(folder / "dumps" / f"keepalived{name}.data" for name in children(log)))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(SECONDS)
    assert "SIGSEGV" not in log.read_text(errors="replace")
    return normal(folder / "dumps")


CHILDREN = {"VRRP child": "", "Healthcheck child": "_check", "BFD child": "_bfd"}


def children(log: Path) -> list[str]:
    """How the dumps are called of those processes that were started."""
    said = log.read_text(errors="replace")
    return [name for who, name in CHILDREN.items() if f"Starting {who}" in said]


def wait_until_started(log: Path) -> None:
    """Wait until keepalived says so: the state that instances begin in is in the dumps."""
    end = time.monotonic() + SECONDS
    while "Startup complete" not in log.read_text(errors="replace"):
        assert time.monotonic() < end, log.read_text(errors="replace")
        time.sleep(0.02)


def wait_until_quiet(*paths: Path) -> None:
    """Wait until some files are there and do not grow any more."""
    end, seen, since = time.monotonic() + SECONDS, [0], time.monotonic()
    while time.monotonic() - since < 0.3 or 0 in seen:
        assert time.monotonic() < end
        sizes = [path.stat().st_size if path.exists() else 0 for path in paths]
        if sizes != seen:
            seen, since = sizes, time.monotonic()
        time.sleep(0.02)


# The director's pipes, what differs from run to run, and what the pillar brings along: a weight's
# file for each real server.
NOISE = re.compile(
    r"\s*(Router ID =|VRRP notify fifo|LVS notify fifo|.*[Nn]otify priority changes|Read timeout"
    r"|Last transition|thread_|fd_in|fd_out|index =|local discriminator|.*EFF WEIGHT"
    r"|Script security|Default script|Unicast config option specified but using"
    r"|GARP next time|Master down timer|(Effective|Total) priority"
    r"|Not IPv6 forwarding. Last checked"
    # What real servers have that say nothing of their own; each of them tells what it has.
    r"|default forwarding method =|forwarding method =  0x7\Z"
    r"|Tracked Files\Z|\S+/rs-\S+, weight 1\Z|\Z)"
)


def normal(folder: Path) -> list[str]:
    """The dumps of all processes, section by section, without noise."""
    found: list[str] = []
    for path in sorted(folder.glob("keepalived*.data")):
        if path.name == "keepalived_parent.data":
            continue
        text = path.read_text(errors="replace")
        if path.name != "keepalived.data":
            # Only one process reads the older of the two ways to say it.
            text = re.sub("(?m)^ LVS syncd .*\n", "", text)
        sections = re.split("(?m)^(?=------<)", text)
        found += [line for section in sections for line in told(section.split("\n"))]
    return found


def told(section: list[str]) -> list[str]:
    """What a section says beside noise and weights."""
    found = [line for line in without_weights(section) if not NOISE.match(line)]
    return found if len(found) > 1 else []


def without_weights(lines: list[str]) -> Iterator[str]:
    """A section without the checks and the files for weights, which the pillar brings along."""
    entries: list[list[str]] = []
    for line in lines:
        if line.startswith("  ") and entries:
            entries[-1].append(line)
        else:
            entries.append([line])
    for entry in entries:
        if not any(trackfiles.FOLDER in line or "FILE_CHECK" in line for line in entry):
            yield from entry


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_keepalived_reads_the_same_from_what_was_taken_over(path: Path, tmp_path: Path) -> None:
    cluster = adopted(path, tmp_path)
    prepare(cluster)
    ours = keepalived.render(cluster, "lb1", TEMPLATE)
    assert dumped(ours, tmp_path) == dumped(path.read_text(), tmp_path)


# --------------------------------------------------------------------------------------------------
# Files that nobody wrote

GLOBAL = [
    "lvs_timeouts tcp 800 udp 30",
    "vrrp_garp_master_refresh 45",
    "vrrp_garp_interval .25",
    "smtp_alert_vrrp on",
    "vrrp_strict",
    "notification_email { noc@example.com }",
    "smtp_server 10.10.10.5",
    "lvs_sync_daemon eth0 V id 9",
    "checker_log_all_failures",
    "max_auto_priority 50",
    "vrrp_priority -5",
    "brandnew 1",
]
INSTANCE = [
    "state MASTER",
    "priority 133",
    "advert_int 2",
    "nopreempt",
    "preempt_delay 7.5",
    "garp_master_delay 3",
    "garp_extra_if all 60",
    "smtp_alert",
    "smtp_alert off",
    "authentication { auth_type PASS\nauth_pass ab }",
    'authentication {\nauth_type PASS\nauth_pass "a#!"\n}',
    "track_interface { eth1 weight 3 reverse\neth2\n}",
    "unicast_src_ip 10.10.10.11",
    "unicast_peer { 10.10.10.12\n10.10.10.13 }",
    "notify_master \"/bin/true a 'b c'\" root",
    "virtual_ipaddress_excluded { 10.10.10.77/24 dev eth1 label eth1:x\nfd00:10::77/64 }",
    "virtual_routes { 10.9.0.0/16 via 10.10.10.1 dev eth0 }",
    "lower_prio_no_advert yes",
    "use_vmac",
    "debug 2",
]
VIRTUAL_SERVER = [
    "lb_algo sh",
    "lvs_sched wrr",
    "lb_kind DR",
    "lvs_method TUN type gre csum",
    "delay_loop 2.5",
    "persistence_timeout",
    "persistence_timeout 77",
    "alpha",
    "omega",
    "quorum 1",
    "quorum_up '/bin/true up' root",
    "inhibit_on_failure",
    "sorry_server 10.10.10.99 80",
    "smtp_alert",
    "retry 4",
    "warmup 0",
    "virtualhost www.example.com",
    "ha_suspend",
    "snmp_name web",
]
REAL_SERVER = [
    "weight 5",
    "weight 77",
    "uthreshold 90",
    "inhibit_on_failure",
    "lvs_method NAT",
    "notify_up /bin/true",
    "delay_loop 9",
    "TCP_CHECK { }",
    "TCP_CHECK {\nconnect_port 81\nbindto 10.10.10.11\nfwmark 3 }",
    "HTTP_GET { url { path /x?y\nstatus_code 200-299 404 }\nurl {\npath /z }\nnb_get_retry 2 }",
    "SSL_GET { enable_sni\nurl { path /\nregex 'a \"b\" c'\nregex_no_match } }",
    "SMTP_CHECK { helo_name x.example.com\nretry 2 }",
    "MISC_CHECK { misc_path \"/bin/true 'x y'\"\nmisc_timeout 3\nmisc_dynamic }",
    "PING_CHECK { alpha }",
    "UDP_CHECK { payload 0a 0b\nrequire_reply }",
    "DNS_CHECK { name x.example.com\ntype AAAA }",
]


def some(of: list[str]) -> st.SearchStrategy[str]:
    """Some statements in any order, one of each keyword, but of the checks."""
    return st.lists(
        st.sampled_from(of),
        max_size=7,
        unique_by=lambda line: line if "_CHECK" in line or "_GET" in line else kind(line),
    ).map("\n".join)


def kind(line: str) -> str:
    word = line.split()[0]
    return importing.SYNONYMS.get(word, word)


configurations = st.builds(
    "global_defs {{\nrouter_id r\n{}\n}}\n"
    "vrrp_instance V {{\ninterface eth0\nvirtual_router_id 5\n{}\n"
    "virtual_ipaddress {{ 10.10.10.10/24 }}\n}}\n"
    "virtual_server 10.10.10.10 80 {{\n{}\nprotocol TCP\n"
    "real_server 10.10.10.41 80 {{\n{}\n}}\nreal_server 10.10.10.42 80 {{\n{}\n}}\n}}\n".format,
    *map(some, (GLOBAL, INSTANCE, VIRTUAL_SERVER, REAL_SERVER, REAL_SERVER)),
).filter(
    # keepalived sets vmac_xmit_base with these two, and takes it back with the third.
    lambda text: not all(word in text for word in ("use_vmac", "unicast_peer", "vrrp_strict"))
)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=configurations)
def test_keepalived_reads_the_same_from_any_file_that_was_taken_over(
    text: str, tmp_path: Path
) -> None:
    site = tmp_path / "site.conf"
    site.write_text(text)
    cluster = adopted(site, tmp_path)
    prepare(cluster)
    assert dumped(keepalived.render(cluster, "lb1", TEMPLATE), tmp_path) == dumped(text, tmp_path)
