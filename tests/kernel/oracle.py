"""A second opinion on IPVS's messages: pyroute2's, where they are wrong put right.

It shares nothing with our own codec, so what both read alike in the kernel is what is there. It
speaks in the kernel's terms: a virtual server or real server is a dict of attributes, named as in
``linux/ip_vs.h`` without their prefix, in lower case. For tests alone: it takes a hundred times
longer than ours.

What is put right here, of pyroute2 0.9.7 (pyroute2/netlink/generic/ipvs.py): the netmask of IPv6
is a prefix length; the UDP port of a GUE tunnel has the network's byte order; timeouts, daemons and
the answer to GET_INFO have attributes of their own.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from pyroute2.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, genlmsg, nla
from pyroute2.netlink.generic import AsyncGenericNetlinkSocket, GenericNetlinkSocket
from pyroute2.netlink.generic import ipvs as theirs

Attributes = dict[str, Any]

# Of no use to compare: they change by themselves.
COUNTERS = {"stats", "stats64", "active_conns", "inact_conns", "persist_conns"}
IP_VS_SVC_F_HASHED = 2


def _changed(nla_map: tuple[tuple[str, str], ...], **types: str) -> tuple[tuple[str, str], ...]:
    """A map of attributes, with other types for some of them."""
    return tuple((name, types.get(name, kind)) for name, kind in nla_map)


class message(theirs.ipvsmsg):  # noqa: N801 - pyroute2 looks nested classes up by such names
    """Everything but the answer to GET_INFO."""

    nla_map = (
        *theirs.ipvsmsg.nla_map[:3],
        ("IPVS_CMD_ATTR_DAEMON", "daemon"),
        ("IPVS_CMD_ATTR_TIMEOUT_TCP", "uint32"),
        ("IPVS_CMD_ATTR_TIMEOUT_TCP_FIN", "uint32"),
        ("IPVS_CMD_ATTR_TIMEOUT_UDP", "uint32"),
    )

    class service(theirs.ipvsmsg.service):  # noqa: N801
        nla_map = _changed(theirs.ipvsmsg.service.nla_map, IPVS_SVC_ATTR_NETMASK="netmask")

        @staticmethod
        def netmask(server: nla, value: Any = None, **_: Any) -> type[nla]:
            """The kind of a netmask, by the family of the virtual server."""
            family = server.get_attr("IPVS_SVC_ATTR_AF")
            return nla.uint32 if family == socket.AF_INET6 else nla.ip4addr

    class dest(theirs.ipvsmsg.dest):  # noqa: N801
        nla_map = _changed(theirs.ipvsmsg.dest.nla_map, IPVS_DEST_ATTR_TUN_PORT="be16")

    class daemon(nla):  # noqa: N801
        prefix = "IPVS_DAEMON_ATTR_"
        nla_map = (
            ("IPVS_DAEMON_ATTR_UNSPEC", "none"),
            ("IPVS_DAEMON_ATTR_STATE", "uint32"),
            ("IPVS_DAEMON_ATTR_MCAST_IFN", "asciiz"),
            ("IPVS_DAEMON_ATTR_SYNC_ID", "uint32"),
            ("IPVS_DAEMON_ATTR_SYNC_MAXLEN", "uint16"),
            ("IPVS_DAEMON_ATTR_MCAST_GROUP", "ip4addr"),
            ("IPVS_DAEMON_ATTR_MCAST_GROUP6", "ip6addr"),
            ("IPVS_DAEMON_ATTR_MCAST_PORT", "uint16"),
            ("IPVS_DAEMON_ATTR_MCAST_TTL", "uint8"),
        )


class information(genlmsg):  # noqa: N801
    """The answer to GET_INFO."""

    prefix = "IPVS_INFO_ATTR_"
    nla_map = (
        ("IPVS_INFO_ATTR_UNSPEC", "none"),
        ("IPVS_INFO_ATTR_VERSION", "uint32"),
        ("IPVS_INFO_ATTR_CONN_TAB_SIZE", "uint32"),
    )


class _AsyncSocket(AsyncGenericNetlinkSocket):
    answer: type[genlmsg] = message

    async def setup_endpoint(self) -> None:
        if getattr(self.local, "transport", None) is None:
            await super().setup_endpoint()
            await self.bind(theirs.GENL_NAME, self.answer)

    async def talk(self, command: int, flags: int, attributes: list[Any]) -> list[genlmsg]:
        request = message()
        request["cmd"] = command
        request["version"] = theirs.GENL_VERSION
        request["attrs"] = attributes
        return list(await self._do_request(request, msg_flags=NLM_F_REQUEST | flags))


class _AsyncInformationSocket(_AsyncSocket):
    answer = information


class Oracle(GenericNetlinkSocket):
    """A conversation with the kernel's IPVS, in the network of the calling thread."""

    async_class = _AsyncSocket

    def __enter__(self) -> Oracle:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def add(self, service: Attributes, *dests: Attributes) -> None:
        """Add a virtual server with its real servers."""
        flags = {"flags": service.get("flags", 0), "mask": 0xFFFFFFFF}
        whole = _encoded("IPVS_SVC_ATTR_", {**service, "flags": flags})
        self._talk(theirs.IPVS_CMD_NEW_SERVICE, NLM_F_ACK, [("IPVS_CMD_ATTR_SERVICE", whole)])
        for dest in dests:
            attributes = [
                ("IPVS_CMD_ATTR_SERVICE", _encoded("IPVS_SVC_ATTR_", _key(service))),
                ("IPVS_CMD_ATTR_DEST", _encoded("IPVS_DEST_ATTR_", dest)),
            ]
            self._talk(theirs.IPVS_CMD_NEW_DEST, NLM_F_ACK, attributes)

    def services(self) -> list[Attributes]:
        """All virtual servers, without their real servers."""
        answers = self._talk(theirs.IPVS_CMD_GET_SERVICE, NLM_F_DUMP, [])
        found = [_decoded(answer.get_attr("IPVS_CMD_ATTR_SERVICE")) for answer in answers]
        for service in found:
            service["flags"] = service["flags"]["flags"] & ~IP_VS_SVC_F_HASHED
        return found

    def dests(self, service: Attributes) -> list[Attributes]:
        """The real servers of a virtual server."""
        of = ("IPVS_CMD_ATTR_SERVICE", _encoded("IPVS_SVC_ATTR_", _key(service)))
        answers = self._talk(theirs.IPVS_CMD_GET_DEST, NLM_F_DUMP, [of])
        return [_decoded(answer.get_attr("IPVS_CMD_ATTR_DEST")) for answer in answers]

    def timeouts(self) -> Attributes:
        """The timeouts, in seconds: ``timeout_tcp``, ``timeout_tcp_fin``, ``timeout_udp``."""
        (answer,) = self._talk(theirs.IPVS_CMD_GET_CONFIG, NLM_F_ACK, [])
        return _decoded(answer)

    def set_timeouts(self, timeouts: Attributes) -> None:
        """Set all timeouts."""
        attributes = _encoded("IPVS_CMD_ATTR_", timeouts)["attrs"]
        self._talk(theirs.IPVS_CMD_SET_CONFIG, NLM_F_ACK, attributes)

    def daemons(self) -> list[Attributes]:
        """The synchronization daemons that run."""
        answers = self._talk(theirs.IPVS_CMD_GET_DAEMON, NLM_F_DUMP, [])
        return [_decoded(answer.get_attr("IPVS_CMD_ATTR_DAEMON")) for answer in answers]

    def start_daemon(self, daemon: Attributes) -> None:
        """Start a synchronization daemon."""
        whole = _encoded("IPVS_DAEMON_ATTR_", daemon)
        self._talk(theirs.IPVS_CMD_NEW_DAEMON, NLM_F_ACK, [("IPVS_CMD_ATTR_DAEMON", whole)])

    def _talk(self, command: int, flags: int, attributes: list[Any]) -> list[genlmsg]:
        answers: list[genlmsg] = self._run_with_cleanup(
            self.asyncore.talk, command, flags, attributes
        )
        return answers


class InformationOracle(Oracle):
    """For the one message whose attributes have the numbers of others."""

    async_class = _AsyncInformationSocket

    def information(self) -> Attributes:
        """The version, as a number, and the size of the table of connections."""
        (answer,) = self._talk(theirs.IPVS_CMD_GET_INFO, NLM_F_ACK, [])
        return _decoded(answer)


def _key(service: Attributes) -> Attributes:
    """The attributes by which the kernel finds a virtual server."""
    return {
        name: service[name]
        for name in ("af", "protocol", "addr", "port", "fwmark")
        if name in service
    }


def _encoded(prefix: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {"attrs": [(f"{prefix}{name.upper()}", value) for name, value in attributes.items()]}


def _decoded(found: Any) -> Attributes:
    """The attributes of a message or of a nested attribute, but for counters."""
    prefix = type(found).prefix
    named = {name.removeprefix(prefix).lower(): value for name, value in found["attrs"]}
    return {
        name: dict(value) if isinstance(value, nla) else value
        for name, value in named.items()
        if name not in COUNTERS
    }
