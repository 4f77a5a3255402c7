"""Ask along the path of IPVS's direct routing whether a real server serves a VIP.

A check to a real server's own address cannot see that its VIP is gone. Here a SYN for the VIP goes
to the real server's MAC address, from this machine's own address, as a client's goes by IPVS; the
answer is taken by a packet socket (packet(7)), because the kernel of a director that holds the VIP
itself drops it. The connection stays half open and is reset at once. It works on the director that
holds the VIP and on those that do not, and only where both are on one Ethernet, as direct routing
does.

An answer counts if it comes from that real server's MAC address and names the source port and the
sequence number of the SYN, which nobody can guess.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import secrets
import socket
import struct
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from saltext.lvs import frames, routes, rtnetlink
from saltext.lvs.checks import Done, Outcome, Path
from saltext.lvs.errors import LvsError
from saltext.lvs.frames import Aim, Heard, Meaning
from saltext.lvs.loop import READABLE, Loop, Timer
from saltext.lvs.model import Interface
from saltext.lvs.neighbours import Neighbours
from saltext.lvs.reading import Address
from saltext.lvs.streams import outcome_of

ETH_P_ALL = 3
SOL_PACKET = 263
# linux/if_packet.h
PACKET_STATISTICS = 6
PACKET_IGNORE_OUTGOING = 23
STATISTICS = struct.Struct("=II")
# asm-generic/socket.h
SO_ATTACH_FILTER = 26
SO_RCVBUFFORCE = 33
# The answers of thousands of real servers, while the thread is busy with something else.
BUFFER_BYTES = 4 << 20
MOST_FRAMES = 256
FRAME_BYTES = 2048
# Routes and addresses seldom change; after a bad answer they are asked for again anyhow.
WAY_SECONDS = 30.0
HELD_SECONDS = 0.5
SECRETS_AT_ONCE = 512
SECRET = struct.Struct("=HI")


@dataclass(frozen=True, slots=True)
class Way:
    """How a real server is reached.

    source
        The address of this machine that answers come to, never a VIP.
    """

    wire: Wire
    source: Address
    until: float


class Wire:
    """One packet socket on one interface, and the checks that wait for answers there.

    Raises OSError without the right to use one (CAP_NET_RAW), or without that interface.
    """

    def __init__(self, loop: Loop, interface: str, lost: Callable[[Wire], None]) -> None:
        self.interface = interface
        self.open = True
        self.index = socket.if_nametoindex(interface)
        self.flying: dict[tuple[int, int], PathFlight] = {}
        self.asking: defaultdict[bytes, set[PathFlight]] = defaultdict(set)
        self._loop, self._lost = loop, lost
        self._own: frozenset[Address] = frozenset()
        # With protocol 0 nothing is received before the filter is there.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        try:
            self.mac = self._prepare()
        except OSError:
            self._socket.close()
            raise
        loop.watch(self._socket.fileno(), READABLE, self._readable)

    def _prepare(self) -> bytes:
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        with contextlib.suppress(OSError):  # Linux before 4.20: the filter drops them, then
            self._socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self._filter()
        self._socket.bind((self.interface, ETH_P_ALL))
        _, _, _, kind, mac = self._socket.getsockname()
        if kind != frames.ARPHRD_ETHER:
            raise OSError(errno.EPROTONOSUPPORT, f"{self.interface} is no Ethernet")
        return bytes(mac)

    def hear(self, own: Address) -> None:
        """Let answers to one more address of this machine through the kernel's filter."""
        if own not in self._own:
            self._own |= {own}
            self._filter()

    def _filter(self) -> None:
        program = frames.kernel_filter(self._own)
        code = ctypes.create_string_buffer(frames.packed_filter(program))
        # struct sock_fprog
        pointer = struct.pack("@HP", len(program), ctypes.addressof(code))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, pointer)

    def send(self, frame: bytes) -> int:
        """Send a frame; an error number, 0 if it is on its way."""
        try:
            self._socket.send(frame)
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def statistics(self) -> tuple[int, int]:
        """How many frames have passed the filter since the last time, and how many were lost."""
        size = STATISTICS.size
        passed, lost = STATISTICS.unpack(
            self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, size)
        )
        return passed, lost

    def close(self) -> None:
        """Give back the descriptor."""
        self.open = False
        if self._socket.fileno() >= 0:
            self._loop.forget(self._socket.fileno())
            self._socket.close()

    def _readable(self, _events: int) -> None:
        for _ in range(MOST_FRAMES):
            try:
                frame = self._socket.recv(FRAME_BYTES)
            except BlockingIOError:
                return
            except OSError:  # the interface is down, or gone
                self._lost(self)
                return
            told = frames.heard(frame)
            if told is not None:
                self._tell(told)

    def _tell(self, told: Heard) -> None:
        if told.meaning is Meaning.PRESENT:
            for flight in tuple(self.asking.get(told.address, ())):
                flight.present(told.mac)
            return
        asked = self.flying.get((told.own_port, told.sequence))
        if asked is not None:
            asked.heard(told)


class Paths:
    """Everything that path checks share: packet sockets, the neighbour table, ways, secrets.

    Raises :class:`~saltext.lvs.errors.KernelError` if the kernel does not tell its neighbours.
    """

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.vips: set[Address] = set()
        self.neighbours = Neighbours()
        self._wires: dict[str, Wire] = {}
        self._held: dict[str, tuple[float, tuple[Interface, ...]]] = {}
        self._secrets = b""
        self._used = 0
        loop.watch(self.neighbours.fileno(), READABLE, lambda _: self.neighbours.drain())

    def asker(self, how: Path) -> PathAsker:
        """What carries out one check."""
        self.vips.add(how.vip)
        return PathAsker(self, how)

    def wires(self) -> tuple[Wire, ...]:
        """The packet sockets in use."""
        return tuple(self._wires.values())

    def close(self) -> None:
        """Give back all descriptors."""
        self.loop.forget(self.neighbours.fileno())
        self.neighbours.close()
        for wire in self._wires.values():
            wire.close()
        self._wires.clear()

    def secret(self, wire: Wire) -> tuple[int, int]:
        """A source port and a sequence number that nobody can guess, free on a wire."""
        while True:
            if self._used >= len(self._secrets):
                self._secrets, self._used = secrets.token_bytes(SECRET.size * SECRETS_AT_ONCE), 0
            place, sequence = SECRET.unpack_from(self._secrets, self._used)
            self._used += SECRET.size
            port = frames.OWN_PORTS[place % len(frames.OWN_PORTS)]
            if (port, sequence) not in wire.flying:
                return port, sequence

    def find(self, how: Path) -> Way | Outcome:
        """How a real server is reached, or why it cannot be."""
        try:
            return self._find(how)
        except OSError as error:
            return outcome_of(error.errno or errno.EIO, f"the path to {how.address}")
        except LvsError as error:
            return None, str(error)

    def _find(self, how: Path) -> Way | Outcome:
        route = routes.lookup(how.address)
        if isinstance(route, routes.Refusal):
            return None, f"no path to {how.address}: {route}"
        interface = how.interface or route.interface
        if route.kind != routes.UNICAST:
            return (
                None,
                f"{how.address} is no neighbour of this machine, but a {route.kind} address",
            )
        if route.gateway is not None and route.interface == interface:
            return None, (
                f"{how.address} is behind the router {route.gateway}: direct routing needs it on "
                "the same network"
            )
        source = self._source(how, interface, route.source)
        if source is None:
            return None, f"{interface} has no address of this machine's own in that network"
        wire = self._wire(interface)
        wire.hear(source)
        return Way(wire, source, self.loop.now + WAY_SECONDS)

    def _source(self, how: Path, interface: str, preferred: Address | None) -> Address | None:
        """A director's VIPs are on the same interface, and of IPv6 the kernel may prefer one."""
        held = self._addresses(interface)
        own = [address.ip for address in held if address.ip not in self.vips]
        if preferred in own:
            return preferred
        for address in held:
            if address.ip in own and how.address in address.network:
                return address.ip
        return None

    def _addresses(self, interface: str) -> tuple[Interface, ...]:
        """What an interface holds: for thousands of real servers, it is not read for each."""
        now = self.loop.now
        read, held = self._held.get(interface, (float("-inf"), ()))
        if now - read > HELD_SECONDS:
            link = rtnetlink.read(interface)
            held = tuple(item.address for item in link.addresses) if link is not None else ()
            self._held[interface] = (now, held)
        return held

    def _wire(self, interface: str) -> Wire:
        wire = self._wires.get(interface)
        if wire is None or wire.index != socket.if_nametoindex(interface):
            if wire is not None:
                self._lose(wire)
            wire = self._wires[interface] = Wire(self.loop, interface, self._lose)
        return wire

    def _lose(self, wire: Wire) -> None:
        """Its interface is down or gone; whoever waits there has not been answered, nor asked."""
        wire.close()
        self._wires.pop(wire.interface, None)
        for flight in {*wire.flying.values(), *set().union(*wire.asking.values())}:
            flight.lost()


class PathAsker:
    """Asks one real server for one VIP, again and again."""

    def __init__(self, paths: Paths, how: Path) -> None:
        self.paths, self.how = paths, how
        self.packed, self.vip = how.address.packed, how.vip.packed
        self._way: Way | None = None
        self._aim: Aim | None = None
        self._learnt: bytes | None = None

    def start(self, loop: Loop, timeout: float, done: Done) -> PathFlight:
        """Send a SYN, or ask for the real server's MAC address first."""
        flight = PathFlight(self, timeout, done)
        flight.begin(self._found())
        return flight

    def _found(self) -> Way | Outcome:
        way = self._way
        if way is not None and way.wire.open and self.paths.loop.now < way.until:
            return way
        self.doubt()
        found = self.paths.find(self.how)
        if isinstance(found, Way):
            self._way = found
        return found

    def doubt(self) -> None:
        """Ask for the way anew the next time."""
        self._way = self._aim = self._learnt = None

    def mac(self, way: Way) -> bytes | None:
        """Where to send: as IPVS would, or what was learnt since the way was found.

        Not every director has a reason to keep the real server in its neighbour table, and to ask
        the whole network before each check would be too much.
        """
        return self.paths.neighbours.mac(way.wire.index, self.packed) or self._learnt

    def learn(self, mac: bytes) -> None:
        """The real server has told its MAC address."""
        self._learnt = mac

    def aim(self, way: Way, mac: bytes) -> Aim:
        """Where segments go; kept, because it seldom changes."""
        aim = self._aim
        if aim is None or aim.mac != mac or way is not self._way:
            aim = Aim(mac, way.wire.mac, way.source, self.how.vip, self.how.port)
            self._aim = aim if way is self._way else None
        return aim


class PathFlight:
    """One SYN, sent twice if there is no answer, and what was heard of it.

    With the second one goes the question whether the real server is there at all, which tells a
    host that is gone from a VIP that is gone.
    """

    __slots__ = (
        "_aim",
        "_asker",
        "_done",
        "_how",
        "_mac",
        "_paths",
        "_port",
        "_present",
        "_sequence",
        "_stranger",
        "_timeout",
        "_timer",
        "_way",
    )

    def __init__(self, asker: PathAsker, timeout: float, done: Done) -> None:
        self._asker, self._timeout, self._done = asker, timeout, done
        self._paths, self._how = asker.paths, asker.how
        self._way: Way | None = None
        self._aim: Aim | None = None
        self._timer: Timer | None = None
        self._mac: bytes | None = None
        self._present: bytes | None = None
        self._stranger: bytes | None = None
        self._port = self._sequence = 0

    def begin(self, way: Way | Outcome) -> None:
        """Start on a way, or end at once without one."""
        if not isinstance(way, Way):
            self._done(*way)
            return
        self._way, wire = way, way.wire
        self._port, self._sequence = self._paths.secret(wire)
        wire.flying[self._port, self._sequence] = self
        self._timer = self._paths.loop.later(self._timeout / 2, self._again)
        self._mac = self._asker.mac(way)
        if self._mac is not None:
            self._send(self._syn())
        else:
            self._ask()

    def heard(self, told: Heard) -> None:
        """An answer that has our numbers."""
        how = self._how
        if (told.address, told.port) != (self._asker.vip, how.port):
            return
        if told.mac != self._mac:
            self._stranger = told.mac
            return
        if told.meaning is Meaning.SERVES:
            self._send_reset()
        self._finish(*self._meant(told.meaning))

    def present(self, mac: bytes) -> None:
        """The real server has told its MAC address."""
        self._present = mac
        self._asker.learn(mac)
        if self._mac is None:
            self._mac = mac
            self._send(self._syn())

    def lost(self) -> None:
        """The interface is down or gone."""
        interface = self._way.wire.interface if self._way is not None else ""
        self._finish(None, f"{self._how} could not be asked for: {interface} is down or gone")

    def expired(self) -> Outcome:
        """Its time is up."""
        if self._mac is not None:
            # What was perhaps begun there, while its answer was lost.
            self._send_reset()
        self.stop()
        self._asker.doubt()
        return False, self._silence()

    def stop(self) -> None:
        """Wait no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._way is not None:
            self._way.wire.flying.pop((self._port, self._sequence), None)
            self._ask_no_more(self._way.wire.asking)

    def _ask_no_more(self, asking: dict[bytes, set[PathFlight]]) -> None:
        who = asking.get(self._asker.packed)
        if who is not None:
            who.discard(self)
            if not who:
                del asking[self._asker.packed]

    def _finish(self, ok: bool | None, reason: str) -> None:
        self.stop()
        if not ok:
            self._asker.doubt()
        self._done(ok, reason)

    def _again(self) -> None:
        if self._mac is None or self._send(self._syn()):
            self._ask()

    def _send(self, frame: bytes) -> bool:
        number = self._way.wire.send(frame) if self._way is not None else 0
        if number == errno.ENOBUFS:  # the card's queue is full: as good as lost on the way
            return True
        if number:
            self._finish(*outcome_of(number, f"the path to {self._how.address}"))
        return not number

    def _send_reset(self) -> None:
        if self._way is not None and self._aim is not None:
            self._way.wire.send(self._aim.reset(self._port, self._sequence))

    def _syn(self) -> bytes:
        assert self._way is not None and self._mac is not None
        self._aim = self._asker.aim(self._way, self._mac)
        return self._aim.syn(self._port, self._sequence)

    def _ask(self) -> bool:
        """Ask for the real server's MAC address; of several who ask at a time, one does."""
        way = self._way
        assert way is not None
        asking = way.wire.asking[self._asker.packed]
        asks = not asking or self in asking
        asking.add(self)
        return not asks or self._send(frames.who_has(self._how.address, way.source, way.wire.mac))

    def _meant(self, meaning: Meaning) -> Outcome:
        how = self._how
        if meaning is Meaning.SERVES:
            return True, f"{how.address} serves {how}"
        if meaning is Meaning.REFUSES:
            return False, f"nothing listens on {how} at {how.address}: it was refused (RST)"
        if meaning is Meaning.UNREACHABLE:
            return False, f"{how.address} refuses {how} (ICMP unreachable): a firewall, or no VIP"
        return False, (
            f"VIP {how.vip} is gone from {how.address}, which sends what is for it back to the "
            "network (it forwards)"
        )

    def _silence(self) -> str:
        how, way = self._how, self._way
        assert way is not None
        asked = "ARP" if how.address.version == 4 else "neighbour discovery"
        where = f"{how.address} on {way.wire.interface}"
        if self._mac is None:
            return f"the host is gone: nobody answers {asked} for {where}"
        if self._present is None:
            return f"the host is gone: no answer to a SYN for {how}, nor to {asked} for {where}"
        if self._present != self._mac:
            return (
                f"no answer for {how} from {self._mac.hex(':')}, which the neighbour table has for "
                f"{where}: {self._present.hex(':')} answers {asked} for it"
            )
        if self._stranger is not None:
            return (
                f"VIP {how.vip} is gone from {how.address}, which sends what is for it back to the "
                f"network: {self._stranger.hex(':')} answered in its place"
            )
        return (
            f"VIP {how.vip} is gone from {how.address}, or a firewall drops what is for it: no "
            f"answer to a SYN for {how} within {self._timeout:g} s, though the host answers {asked}"
        )
