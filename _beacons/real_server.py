"""
Ask a director's real servers whether they serve, set the weights that follow at once where the
pillar's ``reaction`` is ``local`` or ``both``, and tell it.

Everything comes from the pillar's virtual servers: whom to ask, how and how often. The beacon
belongs into the minion's own configuration folder, so that it runs without a master too:

.. code-block:: yaml

    beacons:
      real_server:
        - interval: 1
        - repeat: 30
        - gather: 0.1
    beacons_before_connect: True

``interval``
    Seconds between two ticks; Salt's own option. It matters little: a thread asks for itself, and
    needs a tick to be started and, every ten minutes, to know that it is still wanted.

``repeat``
    Seconds between two ``state`` events. Default 30.

``gather``
    Seconds between two ``change`` events: a change is told at once, and what follows within this
    time comes in one event. Default 0.1. Weights do not wait for it.

The thread asks all real servers at the pace of their ``check:interval``. A verdict that changes
something goes into the kernel first, into that one virtual server, and is told after that: no
master is needed. Without a pillar it goes by the cluster's description as last applied. Of a real
server of which nothing is known yet, as after a start of the minion, the weight stays as it is. Of
a virtual server that keepalived keeps, it tells what it finds and leaves the weights alone.

An event's tag is ``salt/beacon/<minion id>/real_server/change`` or ``.../state``. Both have ``id``,
the minion that tells it; ``cluster``; ``boot_id`` and ``seq``, which together with the id make an
event that one and no other (``seq`` grows, with gaps); ``at``, when it was seen, in seconds since
1970.

``change`` lists in ``changes`` what has changed. ``acted`` is True where the weights that follow
are set already; otherwise that is left to the reactor. One of a real server has ``virtual_server``
and ``real_server``; ``was`` and ``now``: ``up``, ``down``, ``held`` (it answers, but has failed so
often lately that it waits) or, for ``was``, ``unknown``; ``reason``, what the last check said;
``weight_was`` and ``weight_now``, in the kernel, None where it is not in the table; and ``why``,
where the weight is not the configured one for its health alone: the floor, a drain, a slow start.
``managed_by: keepalived`` is there where keepalived sets the weight. With the same ``was`` and
``now``, the weight alone has changed. The steps of a slow start are no news.

One of a virtual server as a whole has ``virtual_server`` alone; ``was`` and ``now``, ``up`` where
enough real servers serve (``quorum``); ``sorry``, whether the sorry server does; ``kept``, those
that have failed and keep their clients, because too few would be left, and ``kept_count``; and
``problem``, why its weights could not be set, or None.

.. code-block:: yaml

    # salt/beacon/lb1/real_server/change
    id: lb1
    cluster: prod
    boot_id: 5f0c1d3e-6a0b-4c58-9d6e-0b8f7f5a2f11
    seq: 4711
    at: 1795350411.54
    acted: True
    changes:
      - {virtual_server: web, real_server: rs1, was: up, now: down,
         reason: 'nothing listens on 10.10.10.41:80: the connection was refused',
         weight_was: 50, weight_now: 0, why: ...}

``state`` tells the whole truth: ``acts``, whether weights are set here; ``virtual_servers``, a list
of ``virtual_server``, ``managed_by``, ``states`` (how many real servers are in each), ``unchecked``
(how many are never asked), ``quorum``, ``sorry``, ``kept`` (how many) and ``problem``, the first
1,000, and ``virtual_server_count``; ``not_up``, a list of ``virtual_server``, ``real_server``,
``now``, ``since``, ``reason``, ``weight`` and ``why`` of those that are not up, the first 1,000,
and ``not_up_count``; ``checks``, how many there are; ``asked``, how many answers came since the
minion was started; ``waiting``, for how many the turn has come and no descriptor is free; and
``problem``, why operators' wishes cannot be read or verdicts not be written, or None. It comes at
the first look, then every ``repeat`` seconds.

The page ``docs/events.md`` has all of it in tables.
"""

__virtualname__ = "real_server"

# "_beacon_name" and "enabled" are Salt's own, as are those that it handles before it calls us.
OPTIONS = {
    "repeat",
    "gather",
    "interval",
    "enabled",
    "beacon_module",
    "disable_during_state_run",
    "run_once",
    "_beacon_name",
}
REPEAT_SECONDS = 30
GATHER_SECONDS = 0.1


def __virtual__():
    if "lvs.watch_health" in __salt__:
        return __virtualname__
    return False, "the lvs execution module is not loaded"


def validate(config):
    """Check the configuration: a list of mappings with the options above."""
    if not isinstance(config, list) or not all(isinstance(item, dict) for item in config):
        return False, "The configuration of beacon real_server must be a list of mappings."
    options = _merged(config)
    unknown = ", ".join(sorted(set(options) - OPTIONS))
    if unknown:
        return False, f"Beacon real_server does not know: {unknown}."
    repeat, gather = _times(options)
    if type(repeat) not in (int, float) or repeat <= 0:
        return False, "The option repeat of beacon real_server must be a number above 0."
    if type(gather) not in (int, float) or gather < 0:
        return False, "The option gather of beacon real_server must be a number, 0 or more."
    return True, "The configuration of beacon real_server is right."


def beacon(config):
    """Keep the watcher running, and return the events that it could not send itself."""
    options = _merged(config)
    repeat, gather = _times(options)
    return __salt__["lvs.watch_health"](beacon=_name(options), repeat=repeat, gather=gather)


def close(config):
    """End the watcher; what was found stays: a refresh is no news."""
    __salt__["lvs.unwatch_health"](beacon=_name(_merged(config)))


def _times(options):
    return options.get("repeat", REPEAT_SECONDS), options.get("gather", GATHER_SECONDS)


def _name(options):
    return options.get("_beacon_name", __virtualname__)


def _merged(config):
    return {key: value for item in config for key, value in item.items()}
