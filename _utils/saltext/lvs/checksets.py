"""What the checks of a cluster's real servers are: from the pillar to what the engine asks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from saltext.lvs import checks
from saltext.lvs.checks import ENVIRONMENT, Exec, How, Http, Path, Tcp, Tls
from saltext.lvs.checkwords import PLACEHOLDER, Check, CheckType
from saltext.lvs.health import Rules
from saltext.lvs.model import Cluster, Forward, RealServerShare, VirtualServerConfig
from saltext.lvs.pacing import Pace
from saltext.lvs.reading import Address

# What a program's variables begin with that tell it whom to ask.
VARIABLE = "LVS_"


class Key(NamedTuple):
    """What makes a check that one and no other; a tuple, because it is looked up ten times for each
    answer.

    kind
        ``path``, ``tcp``, ``http``, ``https`` or ``exec``.

    place
        The address and port that are asked, or the program.
    """

    virtual_server: str
    real_server: str
    kind: str
    place: str


def of(cluster: Cluster) -> tuple[checks.Check, ...]:
    """Everything that is to be asked again and again, in the pillar's order.

    A real server that is not enabled is not asked.
    """
    return tuple(
        check
        for config in cluster.virtual_servers.values()
        for share in config.real_servers
        if cluster.real_servers[share.name].enabled
        for check in of_one(cluster, config, share)
    )


def names(cluster: Cluster) -> frozenset[tuple[str, str]]:
    """Who is to be asked anything, by virtual server and real server."""
    return frozenset(
        (config.name, share.name)
        for config in cluster.virtual_servers.values()
        if config.asked
        for share in config.real_servers
        if cluster.real_servers[share.name].enabled
    )


def of_one(
    cluster: Cluster, config: VirtualServerConfig, share: RealServerShare
) -> tuple[checks.Check, ...]:
    """What one real server of a virtual server is asked; nothing, where nothing can be."""
    found: dict[Key, checks.Check] = {}
    for kind in config.asked:
        for how in _HOWS[kind](_Asked(cluster, config, share)):
            key = Key(config.name, share.name, kind.value, str(how))
            found[key] = _check(key, how, config.check)
    return tuple(found.values())


def rules_of(config: VirtualServerConfig) -> Rules:
    """What verdicts of its checks make of a virtual server's real servers."""
    check = config.check
    return Rules(
        rise=check.rise,
        fall=check.fall,
        flaps=check.hold.flaps,
        within=check.hold.within,
        hold=check.hold.first,
        longest_hold=check.hold.longest,
    )


def _check(key: Key, how: How, words: Check) -> checks.Check:
    sooner = words.delay_before_retry
    return checks.Check(
        key,
        how,
        Pace(interval=words.interval, warmup=words.warmup),
        timeout=words.connect_timeout,
        retry=0 if sooner is None else words.retry,
        delay_before_retry=sooner or 0,
    )


# --------------------------------------------------------------------------------------------------
# One real server


@dataclass(frozen=True, slots=True)
class _Asked:
    cluster: Cluster
    config: VirtualServerConfig
    share: RealServerShare

    @property
    def address(self) -> Address:
        return self.cluster.real_servers[self.share.name].address

    @property
    def ports(self) -> tuple[int, ...]:
        """At its own address, each once; only masquerading can make it another than the VIP's."""
        config = self.config
        if config.check.port:
            return (config.check.port,)
        masq = config.forward is Forward.MASQ and not config.group
        found = [self.share.port] if masq else [key.port for key in config.keys]
        return tuple(dict.fromkeys(port for port in found if port))

    @property
    def places(self) -> Iterator[tuple[Address, int]]:
        """The VIPs with their ports."""
        config = self.config
        if config.key.protocol is None:
            yield from ((vip, config.check.port or 0) for vip in config.addresses)
            return
        for key in config.keys:
            if key.address is not None and (port := config.check.port or key.port):
                yield key.address, port


def _paths(asked: _Asked) -> Iterable[How]:
    return (
        Path(asked.address, vip, port)
        for vip, port in asked.places
        if port and vip.version == asked.address.version
    )


def _tcps(asked: _Asked) -> Iterable[How]:
    words = asked.config.check
    return (
        Tcp(
            asked.address,
            port,
            bindto=words.bindto,
            send=words.send.encode(),
            expect=_pattern(words.expect),
        )
        for port in asked.ports
    )


def _https(asked: _Asked) -> Iterable[How]:
    words = asked.config.check
    tls = Tls(words.tls.name, words.tls.verify, words.tls.authorities)
    return (replace(http, tls=tls) for http in _plain_https(asked))


def _plain_https(asked: _Asked) -> Iterator[Http]:
    words = asked.config.check
    for port in asked.ports:
        yield Http(
            asked.address,
            port,
            path=words.http.path,
            host=words.http.host,
            method=words.http.method,
            statuses=words.http.status,
            body=_pattern(words.http.body),
            digest=words.http.digest,
            bindto=words.bindto,
        )


def _pattern(text: str) -> re.Pattern[bytes] | None:
    return re.compile(text.encode()) if text else None


def _programs(asked: _Asked) -> Iterable[How]:
    values = _told(asked)
    variables = tuple((VARIABLE + name.upper(), value) for name, value in values.items())
    yield Exec(_filled(asked.config.check.command, values), (*ENVIRONMENT, *variables))


def _told(asked: _Asked) -> dict[str, str]:
    """What a program is told of the real server that it is to ask."""
    vips, ports = asked.config.addresses, asked.ports
    return {
        "address": str(asked.address),
        "port": str(ports[0]) if ports else "",
        "real_server": asked.share.name,
        "vip": str(vips[0]) if vips else "",
        "virtual_server": asked.config.name,
    }


def _filled(command: tuple[str, ...], values: Mapping[str, str]) -> tuple[str, ...]:
    """Each argument stays one, whatever is filled in."""
    program, *arguments = command
    return (
        program,
        *(PLACEHOLDER.sub(lambda found: values[found[1]], word) for word in arguments),
    )


_HOWS: Mapping[CheckType, Callable[[_Asked], Iterable[How]]] = {
    CheckType.PATH: _paths,
    CheckType.TCP: _tcps,
    CheckType.HTTP: _plain_https,
    CheckType.HTTPS: _https,
    CheckType.EXEC: _programs,
}
