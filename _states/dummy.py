"""
Keep a real server's VIPs on a dummy interface.

.. code-block:: yaml

    dummy0:
      dummy.present
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "dummy"


def __virtual__():
    if "dummy.plan" in __salt__:
        return __virtualname__
    return False, "the dummy execution module is not loaded"


def present(name, addresses=None, check_arp=True, persist=None, force_prefix=False, force=False):
    """
    A dummy interface is there, up and without ARP, and holds its VIPs; and it will after a boot.

    VIPs that this extension once put there and that are no longer wanted go, as soon as nobody uses
    them; addresses that somebody else put there stay, and are named. The files for the next boot
    are written without touching the interface.

    name
        The interface. ``lo``, or a tunnel's end that is there (``tunl0``), may hold VIPs too, and
        is otherwise left as it is.

    addresses
        The VIPs. A prefix may only be /32 (IPv6: /128). By default those that the pillar asks this
        minion to hold: none, if it has this real server disabled.

    check_arp
        Refuse to add an IPv4 VIP while this machine would answer ARP for it: ``arp_ignore`` must be
        1 and ``arp_announce`` 2, for all interfaces or for the one that clients come in on. In test
        mode it is only said, since a state before this one may be about to set them.

    persist
        Who brings it back at a boot: ``systemd-networkd``, ``NetworkManager``, ``ifupdown``,
        ``systemd`` (a unit of our own), ``auto`` (which of these is in use is found out), or False
        (nobody). By default the pillar's ``vip_persistence``; ``auto`` without a pillar. Files for
        another one that were written before go.

    force_prefix
        Take VIPs with another prefix as they are, whatever a boot makes of them: see
        :py:func:`dummy.plan <saltext.lvs.modules.dummy.plan>`.

    force
        Let go of VIPs that are no longer wanted at once. Otherwise one stays until this machine has
        had no connection with it for 30 seconds; the beacon's watcher, or a later apply, then takes
        it away.
    """
    options = {"persist": persist, "force_prefix": force_prefix, "force": force}
    return _kept(
        name,
        "{} is as it should be.",
        lambda: __salt__["dummy.plan"](name, addresses, **options),
        lambda: __salt__["dummy.present"](name, addresses, check_arp=check_arp, **options),
    )


def absent(name, force=False):
    """
    A dummy interface is not there, nor are the VIPs on it, nor the files that would bring it back;
    ``lo`` or a tunnel's end is without our VIPs.

    name
        The interface.

    force
        Take it away even if it holds addresses that are neither ours nor the pillar's VIPs, or VIPs
        that connections need.
    """
    return _kept(
        name,
        "{} is not there.",
        lambda: __salt__["dummy.plan_absent"](name, force),
        lambda: __salt__["dummy.absent"](name, force),
    )


def _kept(name, right, plan, act):
    """One state's answer: plan; where something differs, act; read again where that failed."""
    ret = {"name": name, "result": True, "changes": {}, "comment": ""}
    planned = None
    try:
        planned = plan()
        notes = _notes(planned)
        if not planned["operations"]:
            ret["comment"] = _text(right.format(planned["interface"]), *notes)
            return ret
        if __opts__["test"]:
            head = f"{planned['interface']} would be changed:"
            ret.update(result=None, changes=planned["changes"])
            ret["comment"] = _text(head, *_items(planned["operations"]), *notes)
            return ret
        done = act()
    except (CommandExecutionError, SaltInvocationError) as error:
        ret.update(result=False, comment=str(error), changes=_so_far(planned, plan))
        return ret
    head = f"{done['interface']} was changed:"
    ret.update(result=not done["left"], changes=done["changes"])
    ret["comment"] = _text(head, *_items(done["operations"]), *_left(done), *_notes(done))
    return ret


def _so_far(planned, plan):
    """The planned changes that are made although a later one failed."""
    if planned is None:
        return {}
    try:
        missing = plan()["changes"]
    except (CommandExecutionError, SaltInvocationError):
        return {}
    return {key: change for key, change in planned["changes"].items() if key not in missing}


def _notes(answer):
    if not answer.get("enabled", True):
        yield f"{__opts__['id']} is not enabled: it is to hold no VIP, on purpose."
    yield from (f"{vip}." for vip in answer.get("leaving", ()))
    foreign = answer.get("foreign", ())
    yield from (f"{address} is not ours: left alone." for address in foreign)
    yield from (f"Beware: {fault}." for fault in answer.get("faults", ()))
    yield from (f"Beware: {warning}." for warning in answer.get("warnings", ()))


def _left(done):
    if done["left"]:
        yield "Another program works against it; still missing:"
        yield from _items(done["left"])


def _items(sentences):
    return [f"- {sentence}" for sentence in sentences]


def _text(*lines):
    return "\n".join(lines)
