"""
A real server's VIPs on a dummy interface: see them, plan them, put them there.

Reading and planning need no other package; changing something needs pyroute2. What should be there
comes from the pillar, key ``lvs`` (see ``docs/pillar.md``).

:depends: pyroute2 in Salt's own Python, root
"""

import logging
import time

import salt.utils.event
import saltext.lvs
from salt.exceptions import CommandExecutionError, SaltInvocationError

saltext.lvs.refresh(__file__)

from saltext.lvs import (  # noqa: E402
    errors,
    links,
    model,
    persistence,
    realserver,
    rtnetlink,
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
    Return the dummy interfaces of this machine and what they hold.

    A mapping by name of ``up``, ``arp`` (both True or False) and ``addresses``, a list of
    ``address`` (with prefix) and ``ours`` (whether it bears the mark of this extension; kernels
    before 5.18 keep no marks).

    Raises CommandExecutionError where the kernel does not answer.

    CLI Example:

    .. code-block:: bash

        salt 'rs*' dummy.list
    """
    return {
        link.name: {
            "up": link.up,
            "arp": link.arp,
            "addresses": [
                {"address": str(held.address), "ours": held.ours} for held in link.addresses
            ],
        }
        for link in rtnetlink.read_all()
        if link.kind == links.KIND
    }


@_salt_errors
def plan(interface=None, addresses=None, persist=None):
    """
    Return what ``dummy.present`` would do now, and change nothing.

    The answer has ``interface``; ``operations``, sentences in the order in which they would be
    carried out, and ``changes``, an ``old`` and a ``new`` for the interface's state and for each
    address's holder, and a ``diff`` for each file, both empty when all is as it should be;
    ``foreign``, addresses on the interface that are none of ours and stay; ``faults``, sentences
    about ARP settings that would let a VIP be heard; ``persisted_by`` and ``warnings`` as of
    ``dummy.plan_persist``.

    interface
        The dummy interface; by default the pillar's ``vip_interface``.

    addresses
        The VIPs that it should hold, /32 (IPv6: /128); by default those that the pillar asks this
        minion to hold.

    persist
        As for ``dummy.plan_persist``.

    Raises SaltInvocationError for a wrong pillar or argument, CommandExecutionError if an interface
    of another kind has the name.

    CLI Example:

    .. code-block:: bash

        salt 'rs*' dummy.plan
        salt rs1 dummy.plan dummy0 '[10.10.10.10, "2001:db8::10"]'
    """
    duty = _duty(interface, addresses)
    asked, facts = _asked(persist), persistence.read_facts()
    return {
        **_changed(duty, realserver.plan(duty), _files(duty, asked, facts)),
        "foreign": _foreign(duty),
        "faults": [str(fault) for fault in realserver.faults(duty)],
        **_at_boot(duty, asked, facts),
    }


@_salt_errors
def present(interface=None, addresses=None, check_arp=True, persist=None):
    """
    Make a dummy interface hold its VIPs, up and without ARP, and read it back; then write what
    brings it back at the next boot.

    VIPs that this extension once put there and that are no longer wanted go; addresses that
    somebody else put there stay. The answer is that of ``dummy.plan``, but of what was really done,
    and has ``left``: operations that are missing still because another program works against it.

    interface, addresses
        As for ``dummy.plan``.

    check_arp
        Refuse to add an IPv4 VIP while this machine would answer ARP for it; False adds it anyway.

    persist
        As for ``dummy.plan_persist``.

    Raises what ``dummy.plan`` does, and CommandExecutionError without pyroute2, for ARP settings
    that are not right yet, where the kernel refuses, or for a file that cannot be written.

    CLI Example:

    .. code-block:: bash

        salt 'rs*' dummy.present
    """
    duty = _duty(interface, addresses)
    asked, facts = _asked(persist), persistence.read_facts()
    outcome = realserver.present(duty, bool(check_arp))
    # The files come last: until then those of before tell which addresses are ours.
    written = _files(duty, asked, facts)
    persistence.write(written)
    return {**_told(duty, outcome, written), **_at_boot(duty, asked, facts)}


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
    duty = _duty(interface, None if interface is None else _pillar_vips())
    ops = realserver.plan_absent(duty, bool(force))
    return _changed(duty, ops, _no_files(duty))


@_salt_errors
def absent(interface=None, force=False):
    """
    Take a dummy interface away, with the VIPs on it and the files that would bring it back at a
    boot.

    The answer is as of ``dummy.present``.

    interface
        The dummy interface; by default the pillar's ``vip_interface``.

    force
        Take it away even if it holds addresses that are neither ours nor the pillar's VIPs.

    Raises CommandExecutionError for an interface of another kind, and for such addresses.

    CLI Example:

    .. code-block:: bash

        salt rs1 dummy.absent dummy1
    """
    duty = _duty(interface, None if interface is None else _pillar_vips())
    outcome = realserver.absent(duty, bool(force))
    removed = _no_files(duty)
    persistence.write(removed)
    return _told(duty, outcome, removed)


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
    duty = _duty(interface, addresses)
    asked, facts = _asked(persist), persistence.read_facts()
    return {**_changed(duty, (), _files(duty, asked, facts)), **_at_boot(duty, asked, facts)}


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
    duty = _duty(interface, addresses)
    asked, facts = _asked(persist), persistence.read_facts()
    written = _files(duty, asked, facts)
    persistence.write(written)
    return {**_changed(duty, (), written), **_at_boot(duty, asked, facts)}


@_salt_errors
def check():
    """
    Return whether this minion holds the VIPs that it should, and keeps quiet about them.

    The answer has ``ok``, and ``findings``, a sentence for each thing that is wrong; then, as they
    are, ``interface``, ``vips`` (those that it should hold), ``lacking``, ``foreign`` and
    ``sysctls``.

    Raises SaltInvocationError for a wrong pillar, CommandExecutionError where the kernel does not
    answer.

    CLI Example:

    .. code-block:: bash

        salt 'rs*' dummy.check
    """
    duty = _duty()
    lacking = links.lacking(rtnetlink.read(duty.interface), duty.vips)
    findings = [f"{duty.interface} does not hold {vip}" for vip in lacking]
    findings += [str(fault) for fault in realserver.faults(duty)]
    return {
        "ok": not findings,
        "findings": findings,
        "interface": duty.interface,
        "vips": [str(vip) for vip in duty.vips],
        "lacking": [str(vip) for vip in lacking],
        "foreign": _foreign(duty),
        "sysctls": {str(setting): value for setting, value in realserver.settings(duty).items()},
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
    memory = watch.memory(beacon)
    watch.brief(memory, __pillar__, __opts__["id"])
    return watch.look(memory, __opts__["id"], repeat)


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
    memory = watch.memory(beacon)
    # With beacons_before_connect Salt keeps the beacons of the moment before it had a pillar, and
    # these never see one, until it is told to make them anew.
    if not __pillar__ and watch.should_ask(memory, time.monotonic()):
        __salt__["event.fire"]({}, "beacons_refresh")
    try:
        watch.brief(memory, __pillar__, __opts__["id"])
    except errors.InvalidConfig as error:
        log.error("The pillar describes no cluster that beacon %s could watch: %s", beacon, error)
    return watch.watch(beacon, __opts__["id"], repeat, _sender(beacon))


@_salt_errors
def unwatch(beacon="dummy"):
    """
    End the watcher of a beacon. What it knew stays, for the next one.

    beacon
        The name of the beacon.

    CLI Example:

    .. code-block:: bash

        salt rs1 dummy.unwatch
    """
    watch.unwatch(beacon)


@_salt_errors
def repair():
    """
    Put back the VIPs that this real server lacks now, and set ARP right before that.

    For the reactor: it takes no argument, looks for itself, does nothing where nothing lacks, and
    changes something once in three seconds at most. The answer is as of ``dummy.present``;
    ``queued`` tells that another repair is in line already, which will see what this one would.

    Raises CommandExecutionError on a minion that is no real server, and what ``dummy.present``
    does.

    CLI Example:

    .. code-block:: bash

        salt rs1 dummy.repair
    """
    cluster = model.from_pillar(__pillar__)
    cluster.expect_role(__opts__["id"], model.Role.REAL_SERVER)
    duty = links.duty_of(cluster, __opts__["id"])
    outcome = realserver.repair(duty)
    return {**_told(duty, outcome or links.Outcome(())), "queued": outcome is None}


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


def _duty(interface=None, addresses=None):
    """What the arguments ask for, and the pillar for what they leave open."""
    own = _own_duty() if interface is None or addresses is None or "lvs" in __pillar__ else None
    return links.Duty(
        cluster=own.cluster if own else "",
        interface=own.interface if interface is None else links.as_interface(interface),
        vips=own.vips if addresses is None else links.as_vips(addresses),
        address=own.address if own else None,
    )


def _own_duty():
    return links.duty_of(model.from_pillar(__pillar__), __opts__["id"])


def _pillar_vips():
    """The VIPs that the pillar asks this minion to hold; none without a pillar."""
    return [str(vip) for vip in _own_duty().vips] if "lvs" in __pillar__ else []


def _foreign(duty):
    link = rtnetlink.read(duty.interface)
    ours = persistence.recorded(duty.interface).union(duty.vips)
    return [str(address) for address in links.foreign(link, ours)] if link else []


def _told(duty, outcome, files=()):
    return {
        **_changed(duty, outcome.ops, files),
        "foreign": _foreign(duty),
        "left": [str(op) for op in outcome.left],
    }


def _changed(duty, ops, files):
    """What is done to the interface, and to files for the next boot."""
    return {
        "interface": duty.interface,
        "operations": [str(change) for change in (*ops, *files)],
        "changes": {
            **links.changes(ops),
            **{change.path: change.as_data() for change in files},
        },
    }


def _asked(persist):
    """Who is to bring VIPs back, by the argument or by the pillar."""
    if persist is None and "lvs" in __pillar__:
        return model.from_pillar(__pillar__).vip_persistence
    return model.as_vip_persistence(persist)


def _files(duty, asked, facts):
    return persistence.plan(duty.interface, duty.vips, persistence.choose(asked, facts))


def _no_files(duty):
    return persistence.plan(duty.interface, (), model.VipPersistence.NONE)


def _at_boot(duty, asked, facts):
    kind = persistence.choose(asked, facts)
    return {
        "persisted_by": None if kind is model.VipPersistence.NONE else kind.value,
        "warnings": list(persistence.warnings(asked, duty.interface, facts)),
    }
