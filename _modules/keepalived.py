"""keepalived on a director: its configuration from the pillar, checked before it is used, and
whether it runs.

The configuration holds the VRRP passwords. No function here returns, logs or raises one: they go
from the pillar into the file, which only root may read.

The template is ``salt://lvs/files/keepalived.conf.jinja``. To change it for one site, serve another
file at that place before ours in ``file_roots``, or name one in the pillar
(``lvs:keepalived:template``). Besides the names that its head explains, ``grains``, ``salt`` and
``opts`` are there.

:depends: root; keepalived, for all but rendering
"""

import logging
import time

import salt.utils.event
import saltext.lvs
from salt.exceptions import CommandExecutionError, SaltInvocationError

saltext.lvs.refresh(__file__)

# The library as it is now on disk.
from saltext.lvs import (  # noqa: E402
    adopting,
    applying,
    errors,
    fifos,
    garp,
    keepalived,
    model,
    networkd,
    operating,
    persistence,
    program,
    running,
    trackfiles,
    vrrpwatch,
    watch,
)

log = logging.getLogger(__name__)

__virtualname__ = "keepalived"
__func_alias__ = {"watch_": "watch"}

_salt_errors = errors.raised_as(SaltInvocationError, CommandExecutionError)


def __virtual__():
    if __grains__["kernel"] != "Linux":
        return False, "LVS is a part of Linux"
    return __virtualname__


@_salt_errors
def render(template=None, saltenv=None):
    """Return the ``keepalived.conf`` that the pillar asks for on this director, with stars for
    passwords.

    template
        Another template than the pillar's: a ``salt://`` address or an absolute path.

    saltenv
        The Salt environment to take it from; by default the minion's.

    Raises SaltInvocationError for a wrong pillar, CommandExecutionError on a minion that is no
    director, and for a template that is missing or fails.

    CLI Example:

    .. code-block:: bash

        salt lb1 keepalived.render
    """
    cluster = _cluster()
    return keepalived.mask(_rendered(cluster, template, saltenv), cluster)


@_salt_errors
def plan_config(path=keepalived.CONFIG, template=None, saltenv=None, restart=False):
    """
    Return what ``keepalived.apply_config`` would do now, and change nothing.

    The answer has ``changes``: a ``diff`` of the file, with stars for passwords; ``mode``, ``user``
    and ``group`` where others than root can read it; the pipes and the files of weights that are
    missing, by their paths; and ``loaded``, if the running keepalived has loaded another
    configuration. ``problems`` is what keepalived has against the new text, in its own words, each
    with its place in the pillar; ``checked`` is False where keepalived is not installed yet, so
    that nobody can tell. ``restart`` says why a restart is needed for all of it to be in effect;
    ``failures`` says where keepalived runs with another file than this, so that a reload would load
    nothing of it; ``notes`` is empty.

    path
        The configuration file.

    template, saltenv
        As for ``keepalived.render``.

    restart
        Whether keepalived may be restarted where a reload will not do.

    Raises what ``keepalived.render`` does, and CommandExecutionError for a file that cannot be
    read, or for something that is in the way of a pipe.

    CLI Example:

    .. code-block:: bash

        salt lb1 keepalived.plan_config
    """
    return _told_of(applying.plan(_job(path, template, saltenv), restart=bool(restart)))


@_salt_errors
def apply_config(
    path=keepalived.CONFIG, template=None, saltenv=None, restart=False, service="keepalived"
):
    """
    Write the ``keepalived.conf`` that the pillar asks for, if keepalived accepts it, and make the
    running keepalived load it, with a proof that nothing was lost.

    First the pipes and the files of weights are made that keepalived must find. Then keepalived
    checks the new file beside the old one, which it replaces in one step; the old one stays as
    ``keepalived.conf.previous``. If keepalived refuses it, nothing is replaced and nothing loaded.
    Then, if it runs, it is told to reload, and when it is through with that, every VRRP instance
    that was not changed must be in the state in which it was, VIPs must be held still, and the
    virtual servers that stay must have their connections. Virtual servers that change hands between
    keepalived and Salt do so in the same moment. Where an earlier apply was interrupted between
    writing and loading, this one loads.

    Where keepalived does not run, it is not started.

    The answer is that of ``keepalived.plan_config``, but of what was done. ``restart`` says what is
    not in effect without a restart; ``failures`` what went wrong at the reload, or that keepalived
    runs with another file than this; ``notes`` what else happened.

    path, template, saltenv
        As for ``keepalived.plan_config``.

    restart
        Restart keepalived where a reload will not do, and wait until VRRP has settled. That takes
        the VIPs down: have a backup director do it first.

    service
        keepalived's name as a service, for that.

    Raises what ``keepalived.plan_config`` does, and CommandExecutionError where keepalived is not
    installed.

    CLI Example:

    .. code-block:: bash

        salt lb1 keepalived.apply_config
    """
    job = _job(path, template, saltenv)
    act = (lambda: __salt__["service.restart"](service)) if restart else None
    return _told_of(applying.apply(job, act))


def _job(path, template, saltenv):
    cluster = _cluster()
    return applying.Job(
        path=path,
        text=_rendered(cluster, template, saltenv),
        cluster=cluster,
        pid_file=running.PID_FILE,
        fifos=fifos.PATHS,
        weights=trackfiles.FOLDER,
        record=applying.RECORD,
    )


def _told_of(outcome):
    return {
        "changes": outcome.changes,
        "problems": list(outcome.problems),
        "checked": outcome.checked,
        "restart": list(outcome.restart),
        "failures": list(outcome.failures),
        "notes": list(outcome.notes),
    }


@_salt_errors
def write_config(path=keepalived.CONFIG, template=None, saltenv=None):
    """Write the ``keepalived.conf`` that the pillar asks for, if keepalived accepts it. It is not
    loaded by that.

    keepalived checks the new file beside the old one, which it then replaces in one step. If it
    refuses, the old one stays. Only root can read either at any moment.

    The answer has ``changes``, ``problems`` and ``checked``, as that of ``keepalived.plan_config``.

    path, template, saltenv
        As for ``keepalived.plan_config``.

    Raises what ``keepalived.plan_config`` does, and CommandExecutionError where keepalived is not
    installed.

    CLI Example:

    .. code-block:: bash

        salt lb1 keepalived.write_config
    """
    cluster = _cluster()
    text = _rendered(cluster, template, saltenv)
    return _as_data(keepalived.apply(path, text, keepalived.passwords(cluster)))


@_salt_errors
def check_config(path=keepalived.CONFIG):
    """Return what keepalived has against a configuration file, as a list of its own words; an
    empty list if nothing.

    Warnings count: keepalived starts with them, but what they are about is not what the file says.
    Also told are files that ``keepalived -t`` passes without reading them: a missing one, an empty
    one, an executable one.

    path
        The configuration file.

    Raises CommandExecutionError where keepalived is not installed.

    CLI Example:

    .. code-block:: bash

        salt lb1 keepalived.check_config
    """
    return list(keepalived.check(path, _known()[0]))


@_salt_errors
def reload(path=keepalived.CONFIG):
    """Make the running keepalived read its configuration again, and wait until it goes by it. VIPs
    and connections stay. Returns True.

    The file is checked first, because keepalived ends, or takes real servers out, when it is told
    to load a wrong one.

    path
        The configuration file that it runs with.

    Raises CommandExecutionError if keepalived refuses the file, would need a restart for it, does
    not run, runs with another file, hangs, or is not installed; and if VRRP states, VIPs or virtual
    servers were lost by the reload.

    CLI Example:

    .. code-block:: bash

        salt lb1 keepalived.reload
    """
    secrets, instance = _known()
    harm = applying.reload(path, running.PID_FILE, secrets, instance)
    if harm:
        raise errors.CommandFailed("\n".join(["keepalived was reloaded, but:", *harm]))
    return True


@_salt_errors
def weights(virtual_server=None):
    """
    Return the weights of the real servers that keepalived keeps (``managed_by: keepalived``).

    By virtual server and real server: ``configured``, the pillar's; ``added``, the number that is
    added to it (None without a file); ``enabled``; and ``effective``, the weight that keepalived
    gives it as long as it is up. ``ipvs.list`` tells the kernel's.

    virtual_server
        One of them, by its name in the pillar.

    Raises SaltInvocationError for a wrong pillar, CommandExecutionError on a minion that is no
    director.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' keepalived.weights
    """
    only = () if virtual_server is None else (virtual_server,)
    return trackfiles.told(trackfiles.weights(_cluster(), trackfiles.FOLDER), only)


@_salt_errors
def set_weight(virtual_server, real_server, weight):
    """
    Give a real server that keepalived keeps another weight than the pillar's, at once and until
    ``keepalived.reset_weight``. It stays through reloads, highstates and reboots, and when the real
    server fails and comes back.

    It is noted as by ``lvs.set_weight``, and shows in ``lvs.health``; ``lvs.drain`` and
    ``lvs.maintenance`` stand before it. Returns the ``old`` and the ``new``, each as of
    ``keepalived.weights``. A real server that the pillar has not enabled keeps no weight, whatever
    is said here.

    virtual_server, real_server
        Their names in the pillar.

    weight
        0 to 65535. 0 drains it: it gets no new connections and keeps those that it has, also when
        the pillar gives it another weight. Any other is kept too, from the next highstate on.
        None is as ``keepalived.reset_weight``.

    Raises SaltInvocationError for a wrong weight or name, CommandExecutionError for a virtual
    server that Salt keeps (``ipvs.set_weight``), and before the first ``keepalived.apply_config``.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' keepalived.set_weight web rs1 0
    """
    old, new = operating.keepalived_weight(
        _cluster(), virtual_server, real_server, weight, time.time()
    )
    return {"old": trackfiles.as_data(old), "new": trackfiles.as_data(new)}


@_salt_errors
def reset_weight(virtual_server, real_server):
    """
    Give a real server that keepalived keeps the pillar's weight again.

    Arguments, returns and errors as for ``keepalived.set_weight``.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' keepalived.reset_weight web rs1
    """
    old, new = operating.keepalived_weight(
        _cluster(), virtual_server, real_server, None, time.time()
    )
    return {"old": trackfiles.as_data(old), "new": trackfiles.as_data(new)}


@_salt_errors
def import_config(path=keepalived.CONFIG, names=None, config_id=None, secrets=adopting.SECRETS):
    """Return the pillar that says what a ``keepalived.conf`` of the site's own says, for this
    director. Nothing is changed but the file for the passwords.

    The answer has ``pillar``; ``notes``, what an operator must look at, above all what could not be
    taken over: each with ``file``, ``line``, ``words`` and ``why``; and ``secrets``, a pillar file
    on this director that holds the passwords (``lvs_secrets``), readable by root alone, or None
    where there are none. Passwords are never in the answer. Virtual servers are
    ``managed_by: keepalived``, as they were. See docs/adopting.md.

    path
        The configuration file. What it includes is read too.

    names
        Minion ids of real servers by address, such as ``{10.10.10.41: rs1}``. Any other real server
        gets a name from its address, and ``minion: False``.

    config_id
        What keepalived's option ``-i`` says, for lines that begin with ``@``; by default the first
        part of this machine's name.

    secrets
        Where the passwords go. A file that is there is replaced.

    Raises CommandExecutionError, with file and line, for a file that is no keepalived.conf;
    SaltInvocationError for wrong names.

    CLI Example:

    .. code-block:: bash

        salt lb1 keepalived.import_config names='{10.10.10.41: rs1, 10.10.10.42: rs2}'
    """
    return adopting.adopt(path, __opts__["id"], names, config_id, secrets)


@_salt_errors
def version():
    """
    Return the version of the keepalived that is installed, such as ``2.2.7``.

    Raises CommandExecutionError where none is.

    CLI Example:

    .. code-block:: bash

        salt lb1 keepalived.version
    """
    return program.version()


@_salt_errors
def status():
    """
    Return how keepalived is on this director.

    ``running``, ``pid`` and ``version`` (of the installed program; None if there is none);
    ``hanging``, True where it does not answer within two seconds; ``why``, why it could not be
    asked, or empty; and ``vrrp_instances``, for each its ``vips`` and ``vips_held``, those that are
    on their interface now, and, by keepalived's own word, ``state``, ``priority``,
    ``base_priority``, ``interface``, ``last_transition`` (in seconds since 1970; a reload counts),
    ``advertisements_sent`` and ``advertisements_received``; the first three are None, and the
    others missing, where it gave no answer.

    keepalived is asked by a signal, which leaves a line in its log.

    Raises SaltInvocationError for a wrong pillar, CommandExecutionError on a minion that is no
    director.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' keepalived.status
    """
    cluster, minion_id = _cluster(), __opts__["id"]
    return running.status(
        running.planned(cluster, minion_id),
        running.here(),
        running.PID_FILE,
        instance=running.instance_of(cluster, minion_id),
    )


@_salt_errors
def stats():
    """
    Return what keepalived has counted since it started: by VRRP instance, and by its own names
    (``advert_rcvd``, ``advert_sent``, ``become_master``, ``release_master``, errors by kind).

    Raises CommandExecutionError where keepalived does not run, or does not answer in two seconds.

    CLI Example:

    .. code-block:: bash

        salt lb1 keepalived.stats
    """
    return running.stats(running.PID_FILE, instance=_known()[1])


@_salt_errors
def plan_keep_vips():
    """
    Return what ``keepalived.keep_vips`` would do now, and change nothing: ``operations``,
    sentences; ``changes``, a ``diff`` for each file; and ``unknown``, the interfaces of which
    systemd-networkd has not said yet by which file it keeps them, as while they are away.

    Raises SaltInvocationError for a wrong pillar, CommandExecutionError for a file that cannot be
    read.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' keepalived.plan_keep_vips
    """
    names = _vip_interfaces()
    return _told(networkd.unknown(names), networkd.plan(names))


@_salt_errors
def keep_vips():
    """
    Have systemd-networkd leave VIPs alone on the interfaces where keepalived puts them, as far as
    it manages these: otherwise it takes them away when it is restarted.

    Beside the file that an interface goes by, a file of our own in ``/etc/systemd/network`` says
    ``KeepConfiguration=``, unless what is there already keeps VIPs. A restart of systemd-networkd
    reads it; nothing that runs is told, because ``networkctl reload`` takes the interface's own
    address away for a moment. Files of ours that are no longer needed go: also on a minion that is
    no director any more. The answer is as of ``keepalived.plan_keep_vips``, but of what was done.

    Raises what that does, and CommandExecutionError for a file that cannot be written.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' keepalived.keep_vips
    """
    names = _vip_interfaces()
    # Before the plan: who is decided about in between has its file all the same.
    unknown, planned = networkd.unknown(names), networkd.plan(names)
    networkd.write(planned)
    return _told(unknown, planned)


def _vip_interfaces():
    return networkd.interfaces(model.from_pillar(__pillar__), __opts__["id"])


def _told(unknown, planned):
    return {**persistence.told(planned), "unknown": list(unknown)}


# What a caller may have a job wait for.
LONGEST_DELAY_SECONDS = 60


@_salt_errors
def send_garp(address=None, delay=0):
    """
    Tell all neighbours that the pillar's VIPs are at this director, as far as they are.

    Neighbours that have learnt a wrong MAC address for a VIP get the right one: by gratuitous ARP,
    for IPv6 by unsolicited neighbour advertisements, in three rounds a second apart, on the
    interface that holds the VIP. A VIP that this director does not hold is never announced, so a
    backup may be asked as well.

    The answer has ``announced``, how many frames were sent by VIP and interface; ``silent``, why
    nothing was sent, by VIP; and ``queued``. Rounds begin five seconds apart at least: who asks
    sooner waits, and where somebody waits already, that one's announcement is still to come and
    will do for both, so that ``queued`` is True and nothing is sent.

    address
        One VIP; by default all of the pillar's. The announcement of a single one is never left to
        somebody else who waits.

    delay
        Seconds to wait first, 60 at most.

    Raises SaltInvocationError for a wrong pillar, and for an address that is no VIP of it;
    CommandExecutionError on a minion that is no director, and without the right to send.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' keepalived.send_garp
        salt lb1 keepalived.send_garp 10.10.10.10
    """
    vips = garp.vips(_cluster(), address)
    time.sleep(_seconds(delay))
    told = garp.in_turn(vips, stand_in=address is None)
    done = told or garp.Announced({}, {})
    return {
        "announced": {str(vip): dict(frames) for vip, frames in done.frames.items()},
        "silent": {str(vip): why for vip, why in done.silent.items()},
        "queued": told is None,
    }


def _seconds(delay):
    if type(delay) in (int, float) and 0 <= delay <= LONGEST_DELAY_SECONDS:
        return delay
    raise errors.InvalidConfig("delay", delay, f"seconds, from 0 to {LONGEST_DELAY_SECONDS}")


@_salt_errors
def look(beacon="keepalived by hand", repeat=30):
    """
    Look once, as the beacon ``keepalived_vrrp`` does, and return the events that follow; see there
    for what they say. Nothing is changed.

    keepalived is asked how it is, which takes two seconds where it hangs; its pipes are left to the
    beacon. What was seen is remembered for the next look, by beacon, for as long as the process
    lives.

    beacon
        A name for what remembers; not that of a beacon that is running.

    repeat
        Seconds between two events that tell the whole state.

    Raises SaltInvocationError for a wrong pillar, CommandExecutionError for the name of a running
    beacon.

    CLI Example:

    .. code-block:: bash

        salt lb1 keepalived.look
    """
    if beacon in watch.watchers:
        raise errors.WrongState(f"{beacon} has a watcher, which looks for itself")
    memory = watch.memory(beacon, vrrpwatch.Memory)
    vrrpwatch.brief(memory, __pillar__, __opts__["id"])
    vrrpwatch.ask(memory)
    return list(memory.look(__opts__["id"], repeat, act=False, changed=True))


@_salt_errors
def watch_(beacon="keepalived_vrrp", repeat=30):
    """
    Keep a watcher running for the beacon ``keepalived_vrrp``, and return the events that it could
    not send.

    The watcher is a thread of the minion's own process. It reads keepalived's pipes, looks at the
    VIPs within milliseconds after an address has changed, and sends its events the way that a
    beacon's go. It ends ten minutes after the last call. A wrong pillar is logged once, and the
    last right one is kept to. Without a pillar this asks the minion, every five seconds, to make
    its beacons anew.

    beacon
        The name of the beacon that asks.

    repeat
        Seconds between two events that tell the whole state.

    CLI Example:

    .. code-block:: bash

        salt lb1 keepalived.watch
    """
    memory = watch.memory(beacon, vrrpwatch.Memory)
    # With beacons_before_connect Salt keeps the beacons of the moment before it had a pillar, and
    # these never see one, until it is told to make them anew.
    if not __pillar__ and watch.should_ask(memory, time.monotonic()):
        __salt__["event.fire"]({}, "beacons_refresh")
    try:
        vrrpwatch.brief(memory, __pillar__, __opts__["id"])
    except errors.InvalidConfig as error:
        log.error("The pillar describes no cluster that beacon %s could watch: %s", beacon, error)
    return watch.watch(beacon, vrrpwatch.Memory, __opts__["id"], repeat, lambda: _sender(beacon))


@_salt_errors
def unwatch(beacon="keepalived_vrrp"):
    """
    End the watcher of a beacon in this process. What it knew stays, for the next one.

    For the beacon itself: a job is a process of its own, where no watcher runs, and ends none.

    beacon
        The name of the beacon.

    CLI Example:

    .. code-block:: bash

        salt lb1 keepalived.unwatch
    """
    watch.unwatch(beacon)


def _sender(beacon):
    """What gets events out at once: on the minion's own bus, as its beacons' returns go."""
    opts = dict(__opts__)
    head = f"salt/beacon/{opts['id']}/{beacon}/"

    def send(told):
        returns = [
            {"tag": head + event.pop("tag"), "data": event, "beacon_name": "keepalived_vrrp"}
            for event in told
        ]
        with salt.utils.event.get_event("minion", opts=opts, listen=False) as bus:
            if not bus.fire_event({"beacons": returns}, "__beacons_return"):
                raise CommandExecutionError("the minion's event bus does not answer")

    return send


def _cluster():
    cluster = model.from_pillar(__pillar__)
    cluster.expect_role(__opts__["id"], model.Role.DIRECTOR)
    return cluster


def _known():
    """The passwords and keepalived's own name, as far as the pillar says any."""
    try:
        cluster = _cluster()
    except (errors.InvalidConfig, errors.WrongRole):
        return frozenset(), ""
    return keepalived.passwords(cluster), running.instance_of(cluster, __opts__["id"])


def _rendered(cluster, template, saltenv):
    """The configuration with the passwords in it: for this module alone, never to be returned."""
    source = template or cluster.keepalived_template
    context = {"grains": __grains__, "salt": __salt__, "opts": __opts__}
    return keepalived.render(cluster, __opts__["id"], _fetched(source, saltenv), context, source)


def _fetched(source, saltenv):
    """The text of a template, from the master where it is a ``salt://`` address."""
    saltenv = saltenv or __opts__.get("saltenv") or "base"
    path = source if source.startswith("/") else __salt__["cp.cache_file"](source, saltenv=saltenv)
    if not path:
        raise errors.NotAvailable(f"{source} is not in the file roots of environment {saltenv}")
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise errors.CommandFailed(f"cannot read {source}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise errors.CommandFailed(f"cannot read {source}: it is not UTF-8") from error


def _as_data(change):
    return {
        "changes": dict(change.changes),
        "problems": list(change.problems),
        "checked": change.checked,
    }
