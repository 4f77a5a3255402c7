"""keepalived.conf in blocks, as the template puts them together: what one director's file says.

Lines come without the indentation of what is around them; the order is that of the pillar and of
the tables in :mod:`saltext.lvs.grammar`, so that it is the same from run to run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from saltext.lvs import fifos, grammar, keywords, trackfiles
from saltext.lvs.grammar import CHECKERS, EXTRA, SECTIONS, block, number
from saltext.lvs.instances import VrrpInstance
from saltext.lvs.model import (
    Address,
    AlertsBy,
    CheckType,
    Cluster,
    Director,
    Forward,
    ManagedBy,
    OnFailure,
    Protocol,
    RealServerShare,
    SyncDaemon,
    Tunnel,
    TunnelChecksum,
    TunnelType,
    VirtualServerConfig,
)

METHODS = {Forward.DIRECT: "DR", Forward.TUNNEL: "TUN", Forward.MASQ: "NAT"}
# keepalived has no check for SCTP: there a real server counts as up.
CHECKER_OF = {Protocol.TCP: "TCP_CHECK", Protocol.UDP: "UDP_CHECK", None: "TCP_CHECK"}
# Written before anything else: they say where the rest is done.
FIRST = (
    "namespace_with_ipsets",
    "instance",
    "use_pid_dir",
    "linkbeat_use_polling",
    "child_wait_time",
)
_ELSEWHERE = ("global_defs", "ssl", *FIRST)


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of the file.

    name
        Of what it is made, as the pillar calls it; empty where the lines show it.
    """

    name: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """Its lines as they stand in the file, without the last one's end."""
        return "\n".join(self.lines)


@dataclass(frozen=True, slots=True)
class Conf:
    """The blocks of a director's file, in their order.

    first
        Keywords outside all blocks that say under which name, and how, keepalived runs.

    sections
        What ``lvs:keepalived`` defines, a block for each.

    track_files
        Those that hold the weights of the real servers that keepalived keeps.

    path_checks
        The virtual servers that its path checks go through.
    """

    first: tuple[str, ...]
    global_defs: Block
    sections: tuple[Block, ...]
    vrrp_instances: tuple[Block, ...]
    ssl: tuple[Block, ...]
    track_files: tuple[Block, ...]
    path_checks: tuple[Block, ...]
    virtual_servers: tuple[Block, ...]
    extra: tuple[str, ...]


def of_director(cluster: Cluster, minion_id: str) -> Conf:
    """What the file of a director of the cluster says, passwords included."""
    director = cluster.directors[minion_id]
    told = director.keepalived.sections
    kept = [
        config
        for config in cluster.virtual_servers.values()
        if config.managed_by is ManagedBy.KEEPALIVED
    ]
    return Conf(
        first=tuple(_section_lines(FIRST, told)),
        global_defs=Block("", tuple(_global_defs(cluster, director))),
        sections=tuple(_sections(told)),
        vrrp_instances=tuple(_vrrp_instances(cluster, director)),
        ssl=tuple(_ssl(cluster, told)),
        track_files=tuple(_track_files(kept)),
        path_checks=tuple(_path_checks(cluster)),
        virtual_servers=tuple(_virtual_server(cluster, director, config) for config in kept),
        extra=tuple(keywords.lines(director.keepalived.extra, "lvs:keepalived:extra")),
    )


# --------------------------------------------------------------------------------------------------
# Global definitions and sections


def _global_defs(cluster: Cluster, director: Director) -> list[str]:
    inside = [f"router_id {director.router_id}"]
    if _mails(cluster):
        inside += _mail(cluster)
    if cluster.sync_daemon:
        inside.append(_sync_daemon(cluster, director, cluster.sync_daemon))
    inside += grammar.lines(director.keepalived.global_defs, {**grammar.GLOBAL_DEFS, **EXTRA})
    # Behind script_user, if there is one: at a reload keepalived (2.2.7) looks for the user of each
    # pipe as it reads its line, and drops the pipe, with all notify scripts, where it finds none.
    inside += [
        f"vrrp_notify_fifo {fifos.VRRP}",
        f"lvs_notify_fifo {fifos.LVS}",
        "vrrp_notify_priority_changes true",
    ]
    return block("global_defs", inside)


def _mails(cluster: Cluster) -> bool:
    return cluster.alerts.by is AlertsBy.KEEPALIVED


def _mail(cluster: Cluster) -> Iterator[str]:
    alerts = cluster.alerts
    yield from block("notification_email", alerts.notification_email)
    if alerts.notification_email_from:
        yield f"notification_email_from {alerts.notification_email_from}"
    yield f"smtp_server {alerts.smtp_server[0]}"
    yield f"smtp_connect_timeout {alerts.smtp_connect_timeout}"


def _sync_daemon(cluster: Cluster, director: Director, daemon: SyncDaemon) -> str:
    # The director's own name for the network that an instance is on too, where it has one.
    own = {
        instance.interface: director.vrrp_instances[name].interface
        for name, instance in cluster.vrrp_instances.items()
        if daemon.vrrp_instance in (None, name)
    }
    words = ["lvs_sync_daemon", own.get(daemon.interface, daemon.interface)]
    words += [daemon.vrrp_instance] if daemon.vrrp_instance else []
    words += ["id", str(daemon.syncid)]
    more = {"maxlen": daemon.maxlen, "port": daemon.port, "ttl": daemon.ttl, "group": daemon.group}
    words += [f"{word} {value}" for word, value in more.items() if value is not None]
    return " ".join(words)


def _sections(told: Mapping[str, Any]) -> Iterator[Block]:
    for key, (keyword, kind) in SECTIONS.items():
        if key not in _ELSEWHERE and key in told:
            yield Block(key, tuple(kind.lines(keyword, told[key])))


def _section_lines(keys: Iterable[str], told: Mapping[str, Any]) -> Iterator[str]:
    for key in keys:
        keyword, kind = SECTIONS[key]
        if key in told:
            yield from kind.lines(keyword, told[key])


def _ssl(cluster: Cluster, told: Mapping[str, Any]) -> Iterator[Block]:
    if cluster.ssl_password is None and "ssl" not in told:
        return
    secret = [] if cluster.ssl_password is None else [f'password "{cluster.ssl_password}"']
    inside = grammar.lines(told.get("ssl", {}), {**grammar.SSL, **EXTRA})
    yield Block("ssl", tuple(block("SSL", [*secret, *inside])))


# --------------------------------------------------------------------------------------------------
# VRRP instances


def _vrrp_instances(cluster: Cluster, director: Director) -> Iterator[Block]:
    for name, instance in director.vrrp_instances.items():
        inside = _vrrp_instance(cluster, instance)
        yield Block(name, tuple(block(f"vrrp_instance {name}", inside)))


def _vrrp_instance(cluster: Cluster, instance: VrrpInstance) -> Iterator[str]:
    if instance.state is not None:
        yield f"state {instance.state.value}"
    yield f"interface {instance.interface}"
    yield f"virtual_router_id {instance.virtual_router_id}"
    yield f"priority {instance.priority}"
    yield f"advert_int {number(instance.advert_int)}"
    if instance.family == 6 and "version" not in instance.options:
        yield "version 3"
    if _mails(cluster) and "smtp_alert" not in instance.options:
        yield "smtp_alert"
    if instance.auth_pass is not None:
        kind = f"auth_type {instance.auth_type.value}"
        yield from block("authentication", [kind, f'auth_pass "{instance.auth_pass}"'])
    yield from grammar.lines(instance.options, grammar.VRRP_INSTANCE)
    for keyword, vips in (
        ("virtual_ipaddress", instance.virtual_ipaddress),
        ("virtual_ipaddress_excluded", instance.virtual_ipaddress_excluded),
    ):
        if vips:
            yield from block(keyword, (vip.line(instance.interface) for vip in vips))
    yield from grammar.lines(instance.options, EXTRA)


# --------------------------------------------------------------------------------------------------
# Virtual servers


def _track_files(kept: Iterable[VirtualServerConfig]) -> Iterator[Block]:
    for config in kept:
        for share in config.real_servers:
            name = _track_file(config, share)
            # A file that somebody took away is made anew, and the start goes on.
            inside = [f"file {trackfiles.path(config.name, share.name)}", "weight 1", "init_file 0"]
            yield Block(name, tuple(block(f"track_file {name}", inside)))


def _track_file(config: VirtualServerConfig, share: RealServerShare) -> str:
    """No name of the pillar's own has a slash."""
    return f"{config.name}/{share.name}"


def _path_checks(cluster: Cluster) -> Iterator[Block]:
    for name, mark in cluster.path_marks.items():
        real_server = block(f"real_server {cluster.real_servers[name].address}", ["weight 1"])
        inside = [f"# {name}", "lvs_sched rr", f"lvs_method {METHODS[Forward.DIRECT]}"]
        yield Block(name, tuple(block(f"virtual_server fwmark {mark}", [*inside, *real_server])))


def _virtual_server(cluster: Cluster, director: Director, config: VirtualServerConfig) -> Block:
    inside = [*_settings(cluster, config)]
    for share in config.real_servers:
        inside += ["", f"# {share.name}", *_real_server(cluster, director, config, share)]
    inside += grammar.lines(config.options, EXTRA)
    lines = block(f"virtual_server {_identity(config)}", inside)
    group = block(f"virtual_server_group {config.name}", (one.line for one in config.group))
    above = [*group, ""] if config.group else []
    return Block(config.name, (*above, f"# {config.name}", *lines))


def _identity(config: VirtualServerConfig) -> str:
    if config.group:
        return f"group {config.name}"
    if config.key.fwmark:
        return f"fwmark {config.key.fwmark}"
    return f"{config.address} {config.key.port}"


def _settings(cluster: Cluster, config: VirtualServerConfig) -> Iterator[str]:
    yield f"delay_loop {number(config.check.interval)}"
    yield f"lvs_sched {config.scheduler.value}"
    yield f"lvs_method {METHODS[config.forward]}{_tunnel(config.tunnel)}"
    yield from config.scheduler_words
    if config.one_packet:
        yield "ops"
    if config.persistence:
        yield f"persistence_timeout {config.persistence}"
        if config.netmask < (128 if config.key.family == 6 else 32):
            yield f"persistence_granularity {config.granularity}"
    if config.persistence_engine:
        yield f"persistence_engine {config.persistence_engine}"
    if config.key.protocol is not None:
        yield f"protocol {config.key.protocol.value.upper()}"
    elif config.key.family == 6 and "ip_family" not in config.options:
        yield "ip_family inet6"
    if config.on_failure is OnFailure.DRAIN:
        yield "inhibit_on_failure"
    if _mails(cluster) and "smtp_alert" not in config.options:
        yield "smtp_alert"
    # Before keywords that say more of it.
    if config.sorry_server:
        yield f"sorry_server {_endpoint(config.sorry_server.address, config.sorry_server.port)}"
    yield from grammar.lines(config.options, grammar.VIRTUAL_SERVER)


def _endpoint(address: Address, port: int) -> str:
    return f"{address} {port}" if port else str(address)


def _tunnel(tunnel: Tunnel) -> str:
    if tunnel.type is TunnelType.IPIP:
        return ""
    port = f" port {tunnel.port}" if tunnel.port else ""
    checksum = "nocsum" if tunnel.checksum is TunnelChecksum.NONE else tunnel.checksum.value
    return f" type {tunnel.type.value}{port} {checksum}"


def _real_server(
    cluster: Cluster, director: Director, config: VirtualServerConfig, share: RealServerShare
) -> list[str]:
    inside = [f"weight {share.weight}"]
    inside += [f"uthreshold {share.upper_threshold}"] if share.upper_threshold else []
    inside += [f"lthreshold {share.lower_threshold}"] if share.lower_threshold else []
    inside += grammar.lines(share.options, grammar.REAL_SERVER)
    inside += block("FILE_CHECK", [f"track_file {_track_file(config, share)}"])
    inside += _checks(cluster, director, config, share)
    inside += grammar.lines(share.options, EXTRA)
    address = cluster.real_servers[share.name].address
    return block(f"real_server {_endpoint(address, share.port)}", inside)


def _checks(
    cluster: Cluster, director: Director, config: VirtualServerConfig, share: RealServerShare
) -> Iterator[str]:
    if config.checked_by_path:
        yield from _checker("TCP_CHECK", config, _by_path(cluster, director, config, share))
    own = share.checkers if share.checkers is not None else config.checkers
    if own is not None:
        for kind, settings in own:
            table = {**CHECKERS[kind], **EXTRA}
            yield from block(kind, grammar.lines(settings, table))
    elif CheckType.TCP in config.check.types and config.key.protocol in CHECKER_OF:
        connection = [f"connect_port {config.check.port}"] if config.check.port else []
        connection += [f"bindto {config.check.bindto}"] if config.check.bindto else []
        yield from _checker(CHECKER_OF[config.key.protocol], config, connection)


def _by_path(
    cluster: Cluster, director: Director, config: VirtualServerConfig, share: RealServerShare
) -> list[str]:
    """To the VIP, from the director's own address, with the mark that leads to one real server."""
    return [
        f"connect_ip {config.address}",
        f"connect_port {config.check.port or config.key.port}",
        f"bindto {director.address}",
        f"fwmark {cluster.path_marks[share.name]}",
    ]


def _checker(kind: str, config: VirtualServerConfig, connection: list[str]) -> list[str]:
    check = config.check
    attempts = [
        f"connect_timeout {number(check.connect_timeout)}",
        f"retry {check.fall - 1}",
    ]
    if check.fall > 1:
        delay = check.interval if check.delay_before_retry is None else check.delay_before_retry
        attempts.append(f"delay_before_retry {number(delay)}")
    if check.warmup is not None:
        attempts.append(f"warmup {number(check.warmup)}")
    return block(kind, [*connection, *attempts])
