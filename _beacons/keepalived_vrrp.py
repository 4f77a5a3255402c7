"""
Tell on a director what keepalived's VRRP instances do, as soon as they do it, and what is wrong
with them that keepalived does not say.

Everything comes from the pillar and from keepalived. The beacon belongs into the minion's own
configuration folder, so that it runs without a master too:

.. code-block:: yaml

    beacons:
      keepalived_vrrp:
        - interval: 1
        - repeat: 30
    beacons_before_connect: True

``interval``
    Seconds between two ticks; Salt's own option. It matters little: a thread watches for itself,
    and needs a tick to be started and, every ten minutes, to know that it is still wanted.

``repeat``
    Seconds between two ``state`` events. Default 30. Before each keepalived is asked how it is,
    which leaves a line in its log.

The thread reads the two pipes into which keepalived writes what changes, hears from the kernel
which addresses come and go, and has a handle on keepalived's process. It looks when one of them has
something, and once a second besides. It only tells; keepalived acts.

An event's tag is ``salt/beacon/<minion id>/keepalived_vrrp/change`` or ``.../state``. Both have
``id``, the minion that tells it; ``cluster``; ``boot_id`` and ``seq``, which together with the id
make an event that one and no other (``seq`` grows, with gaps); ``at``, when it was seen, in seconds
since 1970.

``change`` comes at once and lists in ``changes``, in their order, what has changed. Each has
``was`` and ``now``, and ``by``: ``fifo`` (keepalived wrote it into a pipe), ``dump`` (it answered a
question with it), ``netlink`` or ``process`` (it was seen). One of a VRRP instance has
``vrrp_instance``; as states ``MASTER``, ``BACKUP``, ``FAULT``, ``STOP``, ``DELETED``, or None
before there was one; ``priority``, which may be all that has changed; ``vips_held``, its VIPs that
are on their interface here now; ``problem``, as below, or None; and ``notice``, keepalived's word
where that is no state: ``MASTER_RX_LOWER_PRI`` says that another director with a lower priority
took itself for the master. One of a sync group has ``sync_group``. One of a virtual server that
keepalived keeps has ``virtual_server``, one of its real servers ``real_server`` too, with the
states ``UP`` and ``DOWN``. What is not in its configuration any more is told as ``DELETED``.

.. code-block:: yaml

    # salt/beacon/lb1/keepalived_vrrp/change
    id: lb1
    cluster: prod
    boot_id: 5f0c1d3e-6a0b-4c58-9d6e-0b8f7f5a2f11
    seq: 4711
    at: 1795350411.54
    changes:
      - {vrrp_instance: VirtIP_10, was: BACKUP, now: MASTER, priority: 150,
         vips_held: [10.10.10.10], problem: None, by: fifo}

A change with the same state before and after tells that a ``problem`` has begun, or, with None, is
over: ``keepalived does not run, and VIPs are here`` (at once), ``keepalived does not answer`` (with
advertisements every second, after about five), ``VIPs are missing on the master`` and ``VIPs are
held without being master`` (after a second: until then it may be a transition).

``state`` tells the whole truth: ``running``; ``answers``, whether keepalived did, or None where it
could not be asked or has no VRRP instance; ``pipes``, by path, what is wrong with it, or None:
without them, and while somebody else reads them, what changes is found by looking alone, seconds
later; ``vrrp_instances``, a list of ``vrrp_instance``, ``now``, ``since``, ``priority``, ``vips``,
``vips_held`` and ``problem``, and, once keepalived has answered, ``base_priority`` and
``last_transition``; ``sync_groups``, a list of ``sync_group``, ``now`` and ``since``; ``down``, the
virtual and real servers that keepalived has told to be down (1,000 at most), and ``down_count``. It
comes at the first look, then every ``repeat`` seconds. What a killed minion could not tell shows in
it.

The page ``docs/events.md`` has all of it in tables.
"""

__virtualname__ = "keepalived_vrrp"

# "_beacon_name" and "enabled" are Salt's own, as are those that it handles before it calls us.
OPTIONS = {
    "repeat",
    "interval",
    "enabled",
    "beacon_module",
    "disable_during_state_run",
    "run_once",
    "_beacon_name",
}
REPEAT_SECONDS = 30


def __virtual__():
    if "keepalived.watch" in __salt__:
        return __virtualname__
    return False, "the keepalived execution module is not loaded"


def validate(config):
    """Check the configuration: a list of mappings with the options above."""
    if not isinstance(config, list) or not all(isinstance(item, dict) for item in config):
        return False, "The configuration of beacon keepalived_vrrp must be a list of mappings."
    options = _merged(config)
    unknown = ", ".join(sorted(set(options) - OPTIONS))
    if unknown:
        return False, f"Beacon keepalived_vrrp does not know: {unknown}."
    repeat = options.get("repeat", REPEAT_SECONDS)
    if type(repeat) not in (int, float) or repeat <= 0:
        return False, "The option repeat of beacon keepalived_vrrp must be a number above 0."
    return True, "The configuration of beacon keepalived_vrrp is right."


def beacon(config):
    """Keep the watcher running, and return the events that it could not send itself."""
    options = _merged(config)
    return __salt__["keepalived.watch"](
        beacon=_name(options), repeat=options.get("repeat", REPEAT_SECONDS)
    )


def close(config):
    """End the watcher; what was seen stays: a refresh is no news."""
    __salt__["keepalived.unwatch"](beacon=_name(_merged(config)))


def _name(options):
    return options.get("_beacon_name", __virtualname__)


def _merged(config):
    return {key: value for item in config for key, value in item.items()}
