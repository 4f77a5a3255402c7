"""
A real server's VIPs on a dummy interface: see them, plan them, put them there.

Reading and planning need no other package; changing something needs pyroute2. What should be there
comes from the pillar, key ``lvs`` (see ``docs/pillar.md``).

:depends: pyroute2 in Salt's own Python, root
"""

import logging
import time
from dataclasses import replace

import salt.utils.event
import saltext.lvs
from salt.exceptions import CommandExecutionError, SaltInvocationError

saltext.lvs.refresh(__file__)

from saltext.lvs import (  # noqa: E402
    budget,
    dummywatch,
    errors,
    links,
    model,
    persistence,
    realserver,
    rtnetlink,
    verdicts,
    watch,
)

log = logging.getLogger(__name__)

__virtualname__ = "dummy"
__func_alias__ = {"list_": "list", "watch_": "watch"}

_salt_errors = errors.raised_as(SaltInvocationError, CommandExecutionError)


def __virtual__():
    if __grains__["kernel"] != "Linux":
        return False, "dummy interfaces are a part of Linux"
    return __virtualname__


@_salt_errors
def list_():
    """
    Return the dummy interfaces of this machine, and others that hold VIPs of this extension, with
    what they hold.

    A mapping by name of ``kind`` (``dummy``, or the kernel's word for another one; empty for the
    loopback), ``up``, ``arp`` (both True or False) and ``addresses``, a list of ``address`` (with
    prefix) and ``ours`` (whether this extension has put it there, now or by its files at a boot).

    Raises CommandExecutionError where the kernel does not answer.

    CLI Example:

    .. code-block:: bash

        salt 'rs*' dummy.list
    """
    return {
        link.name: {
            "kind": link.kind,
            "up": link.up,
            "arp": link.arp,
            "addresses": _held(link, realserver.ours(link.name)),
        }
        for link in rtnetlink.read_all()
        if link.kind == links.KIND or realserver.touched(link)
    }


@_salt_errors
def plan(interface=None, addresses=None, persist=None, force_prefix=False, force=False):
    """
    Return what ``dummy.present`` would do now, and change nothing.

    The answer has ``interface``; ``operations``, sentences in the order in which they would be
    carried out, and ``changes``, an ``old`` and a ``new`` for the interface's state and for each
    address's holder, and a ``diff`` for each file, both empty when all is as it should be;
    ``foreign``, addresses on the interface that are none of ours and stay; ``leaving``, sentences
    about VIPs that are no longer wanted and stay for now; ``faults``, sentences about ARP settings
    that would let a VIP be heard; ``enabled``, False for a real server that is to hold no VIP
    because the pillar has it disabled; ``persisted_by`` and ``warnings`` as of
    ``dummy.plan_persist``.

    interface
        The interface: one that is a dummy interface or is made as one, or ``lo``, or a tunnel's end
        that is there (``tunl0``), of which only the VIPs are ours. By default the pillar's
        ``vip_interface``.

    addresses
        The VIPs that it should hold, /32 (IPv6: /128); by default those that the pillar asks this
        minion to hold.

    persist
        As for ``dummy.plan_persist``.

    force_prefix
        Take VIPs with another prefix as they are. With a /24, as guides have it, a boot may bring a
        route to the whole network through the interface, and all that this machine sends there is
        lost once the real interface has been down for a moment.

    force
        Let go of VIPs that are no longer wanted at once. Otherwise one stays until this machine has
        had no connection with it for 30 seconds: the directors may not know yet.

    Raises SaltInvocationError for a wrong pillar or argument, CommandExecutionError if an interface
    on which the VIPs would be heard has the name.

    CLI Example:

    .. code-block:: bash

        salt 'rs*' dummy.plan
        salt rs1 dummy.plan dummy0 '[10.10.10.10, "2001:db8::10"]'
    """
    duty, asked = _asked_for(interface, addresses, persist, force_prefix)
    planned = realserver.plan(duty, bool(force))
    at_boot = _AtBoot(asked, planned.existing)
    return {
        **_changed(duty, planned.ops, at_boot.files(duty), planned),
        **_besides(duty, planned),
        "faults": [str(fault) for fault in realserver.faults(duty)],
        **at_boot.told(duty),
    }


@_salt_errors
def present(
    interface=None, addresses=None, check_arp=True, persist=None, force_prefix=False, force=False
):
    """
    Make a dummy interface hold its VIPs, up and without ARP, and read it back; then write what
    brings it back at the next boot.

    VIPs that this extension once put there and that are no longer wanted go, as soon as nobody uses
    them; addresses that somebody else put there stay. The answer is that of ``dummy.plan``, but of
    what was really done, and has ``left``: operations that are missing still because another
    program works against it.

    interface, addresses
        As for ``dummy.plan``.

    check_arp
        Refuse to add an IPv4 VIP while this machine would answer ARP for it; False adds it anyway.

    persist
        As for ``dummy.plan_persist``.

    force_prefix, force
        As for ``dummy.plan``.

    Raises what ``dummy.plan`` does, and CommandExecutionError without pyroute2, for ARP settings
    that are not right yet, where the kernel refuses, or for a file that cannot be written.

    CLI Example:

    .. code-block:: bash

        salt 'rs*' dummy.present
    """
    duty, asked = _asked_for(interface, addresses, persist, force_prefix)
    # Whom to tell of it is settled before anything changes.
    at_boot = _at_boot(duty, asked)
    outcome = realserver.present(duty, bool(check_arp), bool(force))
    # The files come last: until then those of before tell which addresses are ours.
    written = at_boot.files(duty)
    persistence.write(written)
    return {
        **_told(duty, outcome, written, outcome),
        **_besides(duty, outcome),
        **at_boot.told(duty),
    }


@_salt_errors
def plan_absent(interface=None, force=False):
    """
    Return what ``dummy.absent`` would do now, and change nothing: ``interface``, ``operations`` and
    ``changes`` as of ``dummy.plan``.

    interface, force
        As for ``dummy.absent``.

    Raises what ``dummy.absent`` does.

    CLI Example:

    .. code-block:: bash

        salt rs1 dummy.plan_absent dummy1
    """
    duty = _duty_to_end(interface)
    own = _duty() if "lvs" in __pillar__ else duty
    elsewhere = own.vips if own.interface != duty.interface else ()
    ops = realserver.plan_absent(duty, bool(force), elsewhere)
    return _changed(duty, ops, _no_files(duty))


@_salt_errors
def absent(interface=None, force=False):
    """
    Take a dummy interface away, with the VIPs on it and the files that would bring it back at a
    boot; of ``lo`` or a tunnel's end, only the VIPs that are ours.

    The answer is as of ``dummy.present``.

    interface
        The interface; by default the pillar's ``vip_interface``.

    force
        Take it away even if it holds addresses that are neither ours nor the pillar's VIPs, or VIPs
        that connections need.

    Raises CommandExecutionError for an interface that never holds ours, for such addresses, and for
    VIPs with open connections that no other interface holds.

    CLI Example:

    .. code-block:: bash

        salt rs1 dummy.absent dummy1
    """
    duty = _duty_to_end(interface)
    outcome = realserver.absent(duty, bool(force))
    removed = _no_files(duty)
    persistence.write(removed)
    # Only now: what breaks off before this is known still, and completed.
    realserver.forget(duty.interface)
    return {**_told(duty, outcome, removed), "foreign": _foreign(duty)}


@_salt_errors
def plan_persist(interface=None, addresses=None, persist=None):
    """
    Return what ``dummy.persist`` would do now, and change nothing.

    The answer has ``interface``; ``operations`` and ``changes`` as of ``dummy.plan``, of files
    alone; ``persisted_by``, who brings the interface back at a boot, or None; and ``warnings``,
    sentences about why that might fail.

    interface, addresses
        As for ``dummy.plan``.

    persist
        Whom to write files for: ``systemd-networkd``, ``NetworkManager``, ``ifupdown``, ``systemd``
        (a unit of our own), ``auto`` (which of these is in use is found out), or False (none). By
        default the pillar's ``vip_persistence``; ``auto`` without a pillar. Files for another one
        that were written before go.

    Raises SaltInvocationError for a wrong pillar or argument, CommandExecutionError for a file that
    cannot be read.

    CLI Example:

    .. code-block:: bash

        salt 'rs*' dummy.plan_persist
        salt rs1 dummy.plan_persist persist=ifupdown
    """
    duty, at_boot = _duty_at_boot(interface, addresses, persist)
    return {**_changed(duty, (), at_boot.files(duty)), **at_boot.told(duty)}


@_salt_errors
def persist(interface=None, addresses=None, persist=None):
    """
    Write what brings a dummy interface back at the next boot, and leave the interface as it is.

    The answer is as of ``dummy.plan_persist``, but of what was done.

    interface, addresses, persist
        As for ``dummy.plan_persist``.

    Raises what that does, and CommandExecutionError for a file that cannot be written.

    CLI Example:

    .. code-block:: bash

        salt 'rs*' dummy.persist
    """
    duty, at_boot = _duty_at_boot(interface, addresses, persist)
    written = at_boot.files(duty)
    persistence.write(written)
    return {**_changed(duty, (), written), **at_boot.told(duty)}


@_salt_errors
def check(clients=None):
    """
    Return whether this real server is right: whether it holds its VIPs, and what would become of a
    client's packet to each virtual server that it serves. Nothing is sent and nothing is changed.

    The answer has ``ok``, and ``findings``, a sentence for each thing that is wrong, with what to
    do; ``warnings``, the same for what cannot be known from here; then, as they are,
    ``interface``, ``vips`` (those that it should hold), ``lacking``, ``foreign``, ``sysctls`` and
    ``enabled``, False for a real server that gives up its VIPs because the pillar has it disabled.
    ``virtual_servers`` has, by name, four answers, each of ``ok`` (True, False, or None where it
    cannot be known) and ``reason``:

    ``arp``
        Whether this machine keeps quiet about the VIP, in ARP and neighbour discovery.

    ``accepted``
        Whether the kernel takes packets for it: the address is here, the end of the tunnel too, and
        no reverse-path filter drops what comes in.

    ``listening``
        Whether the service listens on VIP and port.

    ``source``
        Whether the answer leaves, with the VIP as its source.

    clients
        Addresses of clients to ask about, one or a list; by default one in each network that
        packets come in from, and one far away.

    Raises SaltInvocationError for a wrong pillar or argument, CommandExecutionError where the
    kernel does not answer.

    CLI Example:

    .. code-block:: bash

        salt 'rs*' dummy.check
        salt rs1 dummy.check 198.51.100.7
    """
    cluster, duty = model.from_pillar(__pillar__), _duty()
    asked = () if clients is None else verdicts.as_addresses(clients)
    machine = verdicts.read_machine(
        duty.interface, realserver.ingress(duty), verdicts.routers(cluster)
    )
    served = verdicts.services(cluster, __opts__["id"]) if duty.enabled else ()
    judged = verdicts.judge(served, machine, asked)
    every = [item for answers in judged.values() for each in answers.values() for item in each]
    lacking = links.lacking(rtnetlink.read(duty.interface), duty.vips)
    findings = [
        *verdicts.sentences(every, False),
        *verdicts.elsewhere(lacking, machine),
        *map(str, realserver.faults(duty)),
    ]
    return {
        "ok": not findings,
        "findings": list(dict.fromkeys(findings)),
        "warnings": verdicts.warnings(every, duty.enabled),
        "interface": duty.interface,
        "vips": [str(vip) for vip in duty.vips],
        "lacking": [str(vip) for vip in lacking],
        "foreign": _foreign(duty),
        "enabled": duty.enabled,
        "sysctls": {str(setting): value for setting, value in realserver.settings(duty).items()},
        "virtual_servers": {
            name: {question: verdicts.summary(each).as_data() for question, each in answers.items()}
            for name, answers in judged.items()
        },
    }


@_salt_errors
def look(beacon="by hand", repeat=30):
    """
    Look once, as the beacon ``dummy`` does, and return the events that follow; see there for what
    they say. Nothing is changed.

    It answers in well under a millisecond. What was seen is remembered for the next look, by
    beacon, for as long as the process lives.

    beacon
        A name for what remembers; not that of a beacon that is running.

    repeat
        Seconds between two events that tell the whole state.

    Raises SaltInvocationError for a wrong pillar, CommandExecutionError for the name of a running
    beacon.

    CLI Example:

    .. code-block:: bash

        salt rs1 dummy.look
    """
    if beacon in watch.watchers:
        raise errors.WrongState(f"{beacon} has a watcher, which looks for itself")
    memory = watch.memory(beacon, dummywatch.Memory)
    dummywatch.brief(memory, __pillar__, __opts__["id"])
    return list(dummywatch.look(memory, __opts__["id"], repeat))


@_salt_errors
def watch_(beacon="dummy", repeat=30):
    """
    Keep a watcher running for the beacon ``dummy``, and return the events that it could not send.

    The watcher is a thread of the minion's own process: it looks within milliseconds after an
    interface or an address has changed, puts back lost VIPs where the pillar's ``reaction`` is
    ``local`` or ``both``, and sends its events the way that a beacon's go. It ends ten minutes
    after the last call. A wrong pillar is logged once, and the last right one is kept to. Without a
    pillar this asks the minion, every five seconds, to make its beacons anew.

    beacon
        The name of the beacon that asks.

    repeat
        Seconds between two events that tell the whole state.

    CLI Example:

    .. code-block:: bash

        salt rs1 dummy.watch
    """
    memory = watch.memory(beacon, dummywatch.Memory)
    # With beacons_before_connect Salt keeps the beacons of the moment before it had a pillar, and
    # these never see one, until it is told to make them anew.
    if not __pillar__ and watch.should_ask(memory, time.monotonic()):
        __salt__["event.fire"]({}, "beacons_refresh")
    try:
        dummywatch.brief(memory, __pillar__, __opts__["id"])
    except errors.InvalidConfig as error:
        log.error("The pillar describes no cluster that beacon %s could watch: %s", beacon, error)
    return watch.watch(beacon, dummywatch.Memory, __opts__["id"], repeat, lambda: _sender(beacon))


@_salt_errors
def unwatch(beacon="dummy"):
    """
    End the watcher of a beacon in this process. What it knew stays, for the next one.

    For the beacon itself: a job is a process of its own, where no watcher runs, and ends none.

    beacon
        The name of the beacon.

    CLI Example:

    .. code-block:: bash

        salt rs1 dummy.unwatch
    """
    watch.unwatch(beacon)


@_salt_errors
def repair(automatic=False):
    """
    Put back the VIPs that this real server lacks now, and set ARP right before that.

    For the reactor: it takes no argument that says what, looks for itself, does nothing where
    nothing lacks, and changes something once in three seconds at most. The answer is as of
    ``dummy.present``; ``queued`` tells that another repair is in line already, which will see what
    this one would.

    automatic
        Nobody asked but a reactor. Such calls change something twelve times within an hour at most;
        then they raise CommandExecutionError, as a person has to look.

    Raises CommandExecutionError on a minion that is no real server, and what ``dummy.present``
    does.

    CLI Example:

    .. code-block:: bash

        salt rs1 dummy.repair
    """
    cluster = model.from_pillar(__pillar__)
    cluster.expect_role(__opts__["id"], model.Role.REAL_SERVER)
    duty = links.duty_of(cluster, __opts__["id"])

    def put_back():
        outcome = realserver.repair(duty)
        return {
            **_told(duty, outcome or links.Outcome(())),
            "foreign": _foreign(duty),
            "queued": outcome is None,
        }

    if not automatic:
        return put_back()
    subject = f"{duty.interface} of {__opts__['id']}"
    return budget.within("repair", subject, put_back, lambda done: bool(done["operations"]))


def _sender(beacon):
    """What gets events out at once: on the minion's own bus, as its beacons' returns go."""
    opts = dict(__opts__)
    head = f"salt/beacon/{opts['id']}/{beacon}/"

    def send(told):
        returns = [
            {"tag": head + event.pop("tag"), "data": event, "beacon_name": __virtualname__}
            for event in told
        ]
        with salt.utils.event.get_event("minion", opts=opts, listen=False) as bus:
            if not bus.fire_event({"beacons": returns}, "__beacons_return"):
                raise CommandExecutionError("the minion's event bus does not answer")

    return send


def _asked_for(interface=None, addresses=None, persist=None, force_prefix=False):
    """The duty and who is to bring it back at a boot: what the arguments say, and the pillar for
    what they leave open.
    """
    by_pillar = "lvs" in __pillar__ or interface is None or addresses is None
    cluster = model.from_pillar(__pillar__) if by_pillar else None
    own = links.duty_of(cluster, __opts__["id"]) if cluster else links.Duty("", "", ())
    duty = replace(own, heals=False)
    if interface is not None:
        duty = replace(duty, interface=links.as_interface(interface))
    if addresses is not None:
        vips = links.as_vips(addresses, force_prefix=bool(force_prefix))
        duty = replace(duty, vips=vips, enabled=True)
    if persist is None and cluster:
        return duty, cluster.vip_persistence
    return duty, model.as_vip_persistence(persist)


def _duty(interface=None, addresses=None):
    duty, _ = _asked_for(interface, addresses)
    return duty


def _duty_to_end(interface):
    """An interface that is to go; every VIP that the pillar may ever have put there is ours."""
    if "lvs" not in __pillar__ and interface is not None:
        return _duty(interface, ())
    cluster = model.from_pillar(__pillar__)
    served = cluster.vips_served_by(__opts__["id"])
    return replace(_duty(interface), vips=served)


def _held(link, mine):
    return [
        {"address": str(held.address), "ours": held.ours or held.address in mine}
        for held in link.addresses
    ]


def _foreign(duty):
    link = rtnetlink.read(duty.interface)
    mine = realserver.ours(duty.interface).union(duty.vips)
    return [str(address) for address in links.foreign(link, mine)] if link else []


def _besides(duty, found):
    """What is on the interface and is not to be, and whether that real server is to hold any."""
    return {
        "foreign": [str(address) for address in found.foreign],
        "leaving": [str(item) for item in found.leaving],
        "enabled": duty.enabled,
    }


def _told(duty, outcome, files=(), besides=None):
    return {
        **_changed(duty, outcome.ops, files, besides),
        "left": [str(op) for op in outcome.left],
    }


def _changed(duty, ops, files, besides=None):
    """What is done to the interface, to files for the next boot, and what is noted for later."""
    name = duty.interface
    unwatched, until = f"{name}, unwatched", f"{name}, until nobody uses it"
    given_up, watched = (besides.given_up, besides.unwatched) if besides else ((), ())
    at_boot = persistence.told(files)
    return {
        "interface": name,
        "operations": [
            *map(str, ops),
            *(f"give up {vip} on {until}" for vip in given_up),
            *(f"watch {vip} on {name} from now on" for vip in watched),
            *at_boot["operations"],
        ],
        "changes": {
            **links.changes(ops),
            **{str(vip): {"old": name, "new": until} for vip in given_up},
            **{str(vip): {"old": unwatched, "new": name} for vip in watched},
            **at_boot["changes"],
        },
    }


def _duty_at_boot(interface, addresses, persist):
    duty, asked = _asked_for(interface, addresses, persist)
    return duty, _at_boot(duty, asked)


def _at_boot(duty, asked):
    link = rtnetlink.read(duty.interface)
    return _AtBoot(asked, realserver.is_existing(duty.interface, link))


class _AtBoot:
    """Who brings an interface's VIPs back at the next boot."""

    def __init__(self, asked, existing):
        self.asked, self.existing = asked, existing
        self.facts = persistence.read_facts()
        self.kind = persistence.choose(asked, self.facts, existing)

    def files(self, duty):
        """What would change among the files."""
        return persistence.plan(duty.interface, duty.vips, self.kind, self.existing)

    def told(self, duty):
        """Who it is, and why that might fail."""
        warnings = persistence.warnings(self.asked, duty.interface, self.facts, self.existing)
        return {
            "persisted_by": None if self.kind is model.VipPersistence.NONE else self.kind.value,
            "warnings": list(warnings),
        }


def _no_files(duty):
    return persistence.plan(duty.interface, (), model.VipPersistence.NONE)
