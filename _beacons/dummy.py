"""
Tell when a real server loses its VIPs, gets them back, or would be heard with them; and put back
what was lost, where the pillar's ``reaction`` is ``local`` or ``both``.

Everything comes from the pillar: which VIPs, on which interface. The beacon belongs into the
minion's own configuration folder, so that it runs without a master too:

.. code-block:: yaml

    beacons:
      dummy:
        - interval: 1
        - repeat: 30
    beacons_before_connect: True

``interval``
    Seconds between two ticks; Salt's own option. It matters little: a thread watches for itself,
    and needs a tick to be started and, every ten minutes, to know that it is still wanted.

``repeat``
    Seconds between two ``state`` events. Default 30.

The thread looks as soon as the kernel says that an interface or an address has changed, and every
second besides, because the kernel says nothing of sysctls. A look costs a fraction of a
millisecond. What it has to tell goes out at once, and with the next tick if the minion's event bus
does not take it. On a minion whose pillar asks it to hold no VIP, or that no apply has given one,
it tells nothing: what was never there cannot be lost.

An event's tag is ``salt/beacon/<minion id>/dummy/change`` or ``.../state``. Both have ``id``, the
minion that tells it; ``cluster``; ``boot_id`` and ``seq``, which together with the id make an event
that one and no other (``seq`` grows, with gaps); ``at``, when it was seen, in seconds since 1970.

``change`` comes at once and lists in ``changes`` what one look found changed. ``healing`` is True
where the minion is putting that right; what came of it follows in another event, with ``acted``
True. With neither, it is left to the reactor. For a VIP: ``interface``, ``address``; ``was``
(``held``, ``lost``, or None at the first look) and ``now`` (``lost``, ``restored``, or
``released``, given up on purpose); ``since``, when that loss was first seen; ``count``, how often
it was lost since the minion watches; ``repaired``, whether the minion has put it back by itself;
and ``problem``, why not, if it should have: because it failed, or, with ``gave_up``, because it did
so three times within a minute already: then something else takes the VIP away, and who that may be
is said. A VIP is held if the interface has its address, be it up or down. For an ARP setting:
``sysctl``, ``was``, ``now``, ``repaired``, ``problem``, and ``quiet``, whether ARP requests for a
VIP stay unanswered with it. The kernel sends no word when one changes, so the look of every second
is what finds it.

``state`` tells the whole truth: ``interface``; ``vips``, a list of ``address``, ``now``, ``since``
and ``count``; ``sysctls``; ``quiet``; ``enabled``; and ``leaving``, VIPs that were given up and are
still held because somebody may use them. It comes at the first look, then every ``repeat`` seconds.
What is wrong at the first look is a change as well: after a reboot that is how a lost VIP shows.

The page ``docs/events.md`` has all of it in tables, with an example.
"""

__virtualname__ = "dummy"

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
    if "dummy.watch" in __salt__:
        return __virtualname__
    return False, "the dummy execution module is not loaded"


def validate(config):
    """Check the configuration: a list of mappings with the options above."""
    if not isinstance(config, list) or not all(isinstance(item, dict) for item in config):
        return False, "The configuration of beacon dummy must be a list of mappings."
    options = _merged(config)
    unknown = ", ".join(sorted(set(options) - OPTIONS))
    if unknown:
        return False, f"Beacon dummy does not know: {unknown}."
    repeat = options.get("repeat", REPEAT_SECONDS)
    if type(repeat) not in (int, float) or repeat <= 0:
        return False, "The option repeat of beacon dummy must be a number of seconds above 0."
    return True, "The configuration of beacon dummy is right."


def beacon(config):
    """Keep the watcher running, and return the events that it could not send itself."""
    options = _merged(config)
    return __salt__["dummy.watch"](
        beacon=_name(options), repeat=options.get("repeat", REPEAT_SECONDS)
    )


def close(config):
    """End the watcher; what was seen stays: a refresh is no news."""
    __salt__["dummy.unwatch"](beacon=_name(_merged(config)))


def _name(options):
    return options.get("_beacon_name", __virtualname__)


def _merged(config):
    return {key: value for item in config for key, value in item.items()}
