"""
This minion's part in a Linux Virtual Server cluster, as its pillar describes it.

The cluster is the pillar's ``lvs``, the passwords are ``lvs_secrets``; see ``docs/pillar.md``.

The functions of the ``lvs`` module that Salt had until 3007 are here too, ``add_service`` to
``zero``, with the arguments that they had. They change the kernel's table by themselves, and the
next highstate makes it what the pillar says again. ``docs/migrating.md`` tells what is other than
it was; whoever begins today uses the ``ipvs`` module.
"""

import importlib
import importlib.metadata
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace

import salt.utils.event
import saltext.lvs
from salt.exceptions import CommandExecutionError, SaltInvocationError

saltext.lvs.refresh(__file__)

# The library as it is now on disk.
from saltext.lvs import (  # noqa: E402
    boot,
    budget,
    errors,
    fresh,
    healthwatch,
    ipvs,
    ipvsadm,
    links,
    locking,
    model,
    networkd,
    operating,
    realserver,
    settings,
    sysctls,
    watch,
)
from saltext.lvs import table as tables  # noqa: E402

__virtualname__ = "lvs"
__func_alias__ = {"list_": "list"}

# The oldest release that was tried; setup.cfg asks for the same.
PYROUTE2 = (0, 9, 6)

# What lvs.report calls, by the role that makes it worth calling.
REPORTS = {
    "lvs.health": model.Role.DIRECTOR,
    "keepalived.status": model.Role.DIRECTOR,
    "dummy.check": model.Role.REAL_SERVER,
}

_salt_errors = errors.raised_as(SaltInvocationError, CommandExecutionError)


def __virtual__():
    if __grains__["kernel"] != "Linux":
        return False, "LVS is a part of Linux"
    return __virtualname__


@_salt_errors
def roles():
    """
    Return this minion's roles in its cluster: ``director``, ``realserver``, ``hypervisor``, or
    none.

    Raises SaltInvocationError for a wrong pillar.

    CLI Example:

    .. code-block:: bash

        salt '*' lvs.roles
    """
    return [role.value for role in _cluster().roles(__opts__["id"])]


def validate():
    """
    Check this minion's pillar, and change nothing.

    Returns ``valid``; ``problems``, a sentence for each wrong value with its pillar path and what
    would be right; ``warnings``, what is allowed but deserves a look; and, for a valid pillar, the
    ``cluster``'s name and this minion's ``roles``.

    CLI Example:

    .. code-block:: bash

        salt '*' lvs.validate
    """
    return model.judge(__pillar__, __opts__["id"])


@_salt_errors
def view():
    """
    Return what the SLS files need to know of this minion's part, as plain values without passwords.

    ``problems`` as of ``lvs.validate``; if there are any, nothing else is given. Otherwise:
    ``roles``, ``cluster`` (its name), ``has_pyroute2`` (whether Salt's own Python has one that is
    new enough), ``modules`` and ``modules_missing`` (of the kernel, by role), ``vip_interface``,
    ``vips`` (those that this minion must hold as a real server), ``serves`` (whether it would have
    any if it is enabled), ``former_interfaces`` (those on which an apply has put VIPs that it must
    hold elsewhere now, or no more), ``was_director`` (whether it is none, and files for one are
    still there), ``sysctls`` (by role), ``ipvs`` (its timeouts and sysctls by the pillar),
    ``beacons`` (with their configuration) and ``lookup`` (the pillar's own names of packages and
    paths).

    CLI Example:

    .. code-block:: bash

        salt lb1 lvs.view
    """
    try:
        cluster = _cluster()
    except errors.InvalidConfig as error:
        return {"problems": [str(problem) for problem in error.problems]}
    minion_id = __opts__["id"]
    interface = cluster.vip_interface_of(minion_id)
    served = cluster.vips_served_by(minion_id)
    servers = cluster.virtual_servers.values()
    parts = {vs.scheduler.value for vs in servers}
    parts |= {f"pe_{vs.persistence_engine}" for vs in servers if vs.persistence_engine}
    modules = {
        model.Role.DIRECTOR.value: ["ip_vs", *sorted(f"ip_vs_{name}" for name in parts)],
        model.Role.REAL_SERVER.value: [module] if (module := links.module_of(interface)) else [],
    }
    return {
        "problems": [],
        "cluster": cluster.name,
        "roles": [role.value for role in cluster.roles(minion_id)],
        "has_pyroute2": _has_pyroute2(),
        "modules": modules,
        "modules_missing": {
            role: [name for name in names if not os.path.isdir(f"/sys/module/{name}")]
            for role, names in modules.items()
        },
        "vip_interface": interface,
        "vips": [str(vip) for vip in cluster.vips_of(minion_id)],
        "serves": bool(served),
        "former_interfaces": realserver.former_interfaces(interface, served),
        "was_director": minion_id not in cluster.directors
        and bool(networkd.ours() or boot.plan_absent()),
        "sysctls": {
            role.value: [{"name": line.name, "value": line.value} for line in lines]
            for role, lines in sysctls.for_minion(
                cluster, minion_id, _facing(cluster, minion_id)
            ).items()
        },
        "ipvs": {
            "timeouts": dict(cluster.ipvs.timeouts),
            "sysctls": dict(cluster.ipvs.sysctls),
        },
        "beacons": _beacons(cluster, minion_id),
        "lookup": dict(cluster.lookup),
    }


def _facing(cluster, minion_id):
    """The interfaces toward directors and clients; of a director, toward real servers."""
    if minion_id not in cluster.directors:
        return realserver.facing(links.duty_of(cluster, minion_id))
    instances = cluster.directors[minion_id].vrrp_instances.values()
    own = tuple(dict.fromkeys(instance.interface for instance in instances))
    return (*own, *realserver.toward(cluster.path_addresses(4), own))


def _beacons(cluster, minion_id):
    """The beacons that a minion needs for its roles, with their configuration."""
    every_second = [{"interval": 1}]
    wanted = {
        "dummy": cluster.vips_served_by(minion_id),
        "keepalived_vrrp": minion_id in cluster.directors and cluster.vrrp_instances,
        "real_server": minion_id in cluster.directors and cluster.virtual_servers,
    }
    return {name: every_second for name, is_wanted in wanted.items() if is_wanted}


@_salt_errors
def check_now(virtual_server, real_server=None):
    """
    Ask the real servers of a virtual server now whether they serve it, from this director; nothing
    is changed.

    That is done in the ways that the virtual server's ``check:types`` name; with
    ``forward: direct`` by default in two. ``path`` sends a SYN for the VIP to the real server's MAC
    address, as IPVS sends a client's, on the director that holds the VIP and on the others alike:
    it tells that the VIP is gone there, that nothing listens on it, or that the host is gone.
    ``tcp`` connects to the real server's own address, which works without the VIP too. With other
    ways of forwarding it is ``tcp`` alone by default. Each is waited for as long as
    ``check:connect_timeout`` says, at most 10 seconds, and all together 30.

    Returns for each real server ``ok`` and the list ``checks``, each with ``check`` (``path``,
    ``tcp``, ``http``, ``https`` or ``exec``), ``place`` (the address and port that were asked for,
    or the program), ``ok``, ``reason`` in words and ``ms``, how many milliseconds it took. ``ok``
    is None where this director could not ask, for instance because it has no route: that says
    nothing of the real server.

    Raises SaltInvocationError for a wrong pillar, for a name that it does not have, and for a
    virtual server whose real servers are not checked; CommandExecutionError on a minion that is no
    director.

    virtual_server
        Its name in the pillar.

    real_server
        One of its real servers, by the name in the pillar; by default all of them.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' lvs.check_now web
        salt lb1 lvs.check_now web rs1
    """
    cluster = _cluster()
    cluster.expect_role(__opts__["id"], model.Role.DIRECTOR)
    return fresh.ask(cluster, virtual_server, real_server)


@_salt_errors
def health(virtual_server=None):
    """
    Return how this director's real servers are, and which weights follow.

    ``watched`` tells whether the beacon ``real_server`` asks them; ``age``, how many seconds ago
    its answers were noted (None: never since the boot). ``virtual_servers`` has for each who keeps
    it, ``managed_by``; of Salt's own, whether enough serve (``quorum``), whether the ``sorry``
    server does, and who has failed but is ``kept`` because too few would be left; and
    ``real_servers``, each with:

    ``state`` (``unknown``, ``up``, ``falling``, ``down``, ``rising``, ``held``), ``since`` when it
    serves or does not, the last ``reason``, ``checked`` how many seconds ago, ``ms`` the last
    answer took, ``count`` of answers in a row against the state, ``falls``, how often it has ceased
    to serve since the beacon watches, ``rise`` and ``fall`` as in the pillar; ``weight`` in the
    kernel now (None: not there), as ``configured``, and ``why`` it is another one or will be;
    ``wish``, an operator's. ``wishes_for_nobody`` lists those of what the pillar does not have, or
    no more: they would be in force again with its name, and ``lvs.undrain``, ``lvs.maintenance``
    and ``lvs.set_weight`` end them under it.

    virtual_server
        This one alone, by its name in the pillar.

    Raises SaltInvocationError for a wrong pillar or name, CommandExecutionError on a minion that is
    no director, and where what is noted cannot be read.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' lvs.health
        salt lb1 lvs.health web
    """
    return operating.told(_directed(), virtual_server)


@_salt_errors
def report():
    """
    Return how this machine does all that it has to do: what the engine ``lvs_alerts`` asks for.

    By function what it returns, or, as text, why it returns nothing: ``lvs.health`` and
    ``keepalived.status`` on a director, ``dummy.check`` on a real server. One function, since a
    job of several at once makes Salt's ``state.apply`` fail while it runs.

    Raises SaltInvocationError for a wrong pillar.

    CLI Example:

    .. code-block:: bash

        salt '*' lvs.report
    """
    roles = _cluster().roles(__opts__["id"])
    return {function: _answer(function) for function, role in REPORTS.items() if role in roles}


def _answer(function):
    try:
        return __salt__[function]()
    except (CommandExecutionError, SaltInvocationError, KeyError) as error:
        return f"{function}: {error}"


@_salt_errors
def drain(real_server, virtual_server=None, wait=0, why=""):
    """
    Send a real server no new clients; those that it has are served on.

    The drain lasts until ``lvs.undrain``: through highstates, restarts and reboots of this
    director, whatever the checks say. It is noted here alone, so say it to all directors. Where
    keepalived keeps a virtual server, its files of weights follow.

    Returns ``operations``, ``changes`` and ``left`` as ``ipvs.apply`` does; ``drained``, whether no
    active connection is left; ``active_connections`` by virtual server; and ``progress``, how these
    went down, each with the seconds since the beginning in ``after``, at most every five seconds.
    While it waits, each step is also an event on the master, ``lvs/drain/MINION``.

    real_server
        Its name in the pillar.

    virtual_server
        In this one alone, by its name in the pillar; by default in all of them, also those that
        come later.

    wait
        How many seconds to wait for its active connections to end, at most; 0 does not.

    why
        What others shall read in ``lvs.health`` and in a highstate's comment.

    Raises SaltInvocationError for a wrong pillar, name or time, CommandExecutionError on a minion
    that is no director, and for a weight that is noted but could not be set.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' lvs.drain rs1 wait=60 why='new disk'
        salt 'lb*' lvs.drain rs1 web
    """
    cluster = _directed()
    seconds = operating.as_seconds("wait", wait, operating.MOST_WAIT_SECONDS)
    places = operating.named(cluster, real_server, virtual_server)
    done = operating.drain(cluster, real_server, virtual_server, str(why), time.time())
    progress = []

    def tell(after, connections):
        progress.append({"after": round(after, 1), "active_connections": connections})
        if seconds:
            content = {"real_server": real_server, **progress[-1]}
            __salt__["event.fire_master"](content, f"lvs/drain/{__opts__['id']}")

    left, _ = operating.wait(lambda: operating.active(cluster, places), seconds, tell)
    return {
        **done.as_data(),
        "drained": not any(left.values()),
        "active_connections": left,
        "progress": progress,
    }


@_salt_errors
def undrain(real_server, virtual_server=None):
    """
    Take a drain back: the real server gets the weight that the pillar and its checks give it.

    Without a virtual server all its drains end; with one, it is served there again even while the
    host is drained elsewhere. Maintenance does not end. Returns ``operations``, ``changes`` and
    ``left`` as ``ipvs.apply`` does. Arguments and errors as for ``lvs.drain``.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' lvs.undrain rs1
    """
    cluster = _directed()
    return operating.undrain(cluster, real_server, virtual_server, time.time()).as_data()


@_salt_errors
def maintenance(real_server, on=True, why=""):
    """
    Begin or end maintenance of a real server: no new clients in any virtual server.

    It lasts as a drain does, and a drain or a weight for one virtual server does not stand before
    it. Returns ``operations``, ``changes`` and ``left`` as ``ipvs.apply`` does.

    real_server
        Its name in the pillar.

    on
        False ends it.

    why
        As for ``lvs.drain``, which also has the errors.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' lvs.maintenance rs1 why='kernel update'
        salt 'lb*' lvs.maintenance rs1 False
    """
    if not isinstance(on, bool):
        raise errors.InvalidConfig("on", on, "True or False")
    cluster = _directed()
    return operating.maintain(cluster, real_server, on, str(why), time.time()).as_data()


@_salt_errors
def set_weight(virtual_server, real_server, weight, seconds=None, why=""):
    """
    Give a real server another weight than the pillar's, for a time or until it is taken back.

    It lasts as a drain does. If the real server fails it is taken out all the same, and comes back
    with this weight. Returns ``operations``, ``changes`` and ``left`` as ``ipvs.apply`` does.

    virtual_server, real_server
        Their names in the pillar.

    weight
        0 to 65535; None for the pillar's again.

    seconds
        How long, above 0; by default until it is taken back. At its end the beacon ``real_server``
        sets the pillar's weight, or the next highstate where that does not run. Not where
        keepalived keeps the virtual server.

    why
        As for ``lvs.drain``.

    Raises what ``lvs.drain`` does, and CommandExecutionError for a real server that the pillar has
    not enabled.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' lvs.set_weight web rs1 10 seconds=3600
        salt 'lb*' lvs.set_weight web rs1 None
    """
    cluster = _directed()
    chosen = operating.as_weight(None if weight == "None" else weight)
    limit = operating.as_duration("seconds", seconds)
    return operating.set_weight(
        cluster, virtual_server, real_server, chosen, limit, str(why), time.time()
    ).as_data()


@_salt_errors
def reweight(virtual_server=None, real_server=None, automatic=False):
    """
    Set the weights that follow from the real servers' health, the pillar and operators' wishes.

    What the beacon ``real_server`` has found counts, as it has just asked. Where it does not run,
    this director asks them now, at most once in ten seconds, and notes the answers; so it may take
    that long. This is for the reactor and for you; whatever calls it, it believes nobody but its
    own checks. Where keepalived keeps a virtual server, it keeps its weights too.

    Returns ``operations``, ``changes`` and ``left`` as ``ipvs.apply`` does.

    virtual_server, real_server
        By their names in the pillar; by default all.

    automatic
        Nobody asked but a reactor. Such calls change the weights of one virtual server 120 times
        within an hour at most; then they raise CommandExecutionError, as a person has to look.

    Raises what ``lvs.drain`` does.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' lvs.reweight
        salt lb1 lvs.reweight web rs1
    """
    cluster = _directed()

    def set_weights():
        return operating.reweight(cluster, virtual_server, real_server).as_data()

    if not automatic:
        return set_weights()
    subject = f"virtual server {virtual_server}" if virtual_server else "all virtual servers"
    return budget.within("reweight", subject, set_weights, lambda done: bool(done["operations"]))


def _directed():
    """The cluster, on one of its directors."""
    cluster = _cluster()
    cluster.expect_role(__opts__["id"], model.Role.DIRECTOR)
    return cluster


def refresh_pillar():
    """
    Ask this minion to read its own pillar anew, which its beacons go by, and wait for nothing.

    Returns a sentence: unlike ``saltutil.refresh_pillar`` it is no failure where no minion runs, as
    with ``salt-call --local`` on a machine without one.

    CLI Example:

    .. code-block:: bash

        salt rs1 lvs.refresh_pillar
    """
    if __salt__["event.fire"]({}, "pillar_refresh"):
        return "The minion was asked to read its pillar anew."
    return "No minion runs here that would have to."


# Waits in a process of its own until the job has delivered its return, because a restart would end
# both.
_RESTART_AFTER = """
import os, sys, time
pid, seconds, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
until = time.monotonic() + seconds
while time.monotonic() < until and os.path.exists(f"/proc/{pid}"):
    time.sleep(0.2)
os.execvp(command[0], command)
"""


def restart_minion(service="salt-minion"):
    """
    Restart this minion's own service, as soon as the job that asks for it has ended.

    Returns a sentence that says what was arranged. A minion that does not run as a service is left
    alone.

    service
        The minion's service, as the init system calls it.

    CLI Example:

    .. code-block:: bash

        salt lb1 lvs.restart_minion
    """
    if not __salt__["service.status"](service):
        return f"{service} does not run as a service here; nothing is restarted"
    booted = os.path.isdir("/run/systemd/system")
    command = ["systemctl", "restart", service] if booted else ["service", service, "restart"]
    # A job in a thread has the minion's own process id, which does not end: that one just gets time
    # to answer.
    threaded = __opts__.get("__role") == "minion" and not __opts__.get("multiprocessing", True)
    seconds = 10 if threaded else 3600
    waiter = [sys.executable, "-c", _RESTART_AFTER, str(os.getpid()), str(seconds), *command]
    if booted:
        # Out of the minion's own control group, which its restart may clear.
        waiter = ["systemd-run", "--collect", "--quiet", *waiter]
    subprocess.Popen(  # pylint: disable=consider-using-with
        waiter,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    return f"{service} will be restarted when this job has ended"


# Only one at a time applies the highstate after that: a second one would find its work done.
_REAPPLY = f"{locking.FOLDER}/reapply"


@_salt_errors
def reapply(splay=30, automatic=False):
    """
    Put back what this real server lacks now, and make sure by a highstate of the formula; where
    nothing lacks, answer at once.

    For the reactor, which asks every minion that has just connected: it may have been rebooted.
    What counts is a VIP of the pillar that an apply has put here, and ARP settings that would let
    it be heard. These come back at once (``dummy.repair``); then, after a random time,
    ``state.apply lvs`` runs: a thousand machines that lost something at once do not all ask the
    master at once.

    Returns ``needed``, whether something lacked, and ``why``, a sentence for each thing that did,
    or why nothing could. Where something did, also ``repaired``, the operations of the repair, or
    what was against it; ``queued``, True where another call is about to run the highstate, and this
    one leaves it to that; else, of the highstate, ``changed``, the ids of its states, and
    ``failed``, their comments by id.

    splay
        Up to how many seconds to wait before the highstate, 3600 at most; 0 runs it at once.

    automatic
        Nobody asked but a reactor. Such calls repair something six times within an hour at most;
        then they raise CommandExecutionError, as a person has to look.

    Raises SaltInvocationError for a wrong pillar.

    CLI Example:

    .. code-block:: bash

        salt 'rs*' lvs.reapply splay=0
    """
    seconds = _splay(splay)
    if not __pillar__.get("lvs"):
        return {"needed": False, "why": ["the pillar describes no cluster"]}
    cluster, minion_id = _cluster(), __opts__["id"]
    if model.Role.REAL_SERVER not in cluster.roles(minion_id):
        return {"needed": False, "why": [f"{minion_id} is no real server"]}
    lacking = realserver.lacks(links.duty_of(cluster, minion_id))
    if not lacking:
        return {"needed": False, "why": ["nothing lacks"]}

    def put_back():
        repaired = _repaired()
        with locking.exclusive(_REAPPLY, wait=False) as ours:
            done = _highstate(random.uniform(0, seconds)) if ours else {}
        return {
            "needed": True,
            "why": list(lacking),
            "queued": not ours,
            "repaired": repaired,
            **done,
        }

    if not automatic:
        return put_back()
    return budget.within("reapply", minion_id, put_back, lambda done: not done["queued"])


def _splay(value):
    if type(value) in (int, float) and 0 <= value <= 3600:
        return value
    raise errors.InvalidConfig("splay", value, "seconds, from 0 to 3600")


def _repaired():
    """Put back what can be put back at once; what was done, or what was against it."""
    try:
        return __salt__["dummy.repair"]()["operations"]
    except CommandExecutionError as error:
        return [str(error)]


def _highstate(wait):
    """Run the formula's states; what changed, and what failed."""
    time.sleep(wait)
    answer = __salt__["state.apply"]("lvs", queue=True)
    if not isinstance(answer, dict):
        raise CommandExecutionError(f"state.apply lvs did not run: {answer}")
    return {
        "changed": [state["__id__"] for state in answer.values() if state["changes"]],
        "failed": {
            state["__id__"]: state["comment"]
            for state in answer.values()
            if state["result"] is False
        },
    }


def _cluster():
    return model.from_pillar(__pillar__)


def _has_pyroute2():
    # A package that was installed a moment ago is found only by a new look at the folders.
    importlib.invalidate_caches()
    try:
        version = importlib.metadata.version("pyroute2")
    except importlib.metadata.PackageNotFoundError:
        return False
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3]) >= PYROUTE2


# --------------------------------------------------------------------------------------------------
# What Salt's own lvs module had until 3007

_FORWARDS = {
    "dr": model.Forward.DIRECT,
    "tunnel": model.Forward.TUNNEL,
    "nat": model.Forward.MASQ,
}


@_salt_errors
def add_service(protocol=None, service_address=None, scheduler="wlc"):
    """
    Add a virtual server without real servers to the kernel's IPVS table.

    Returns True. Raises SaltInvocationError for an argument that cannot be right, and
    CommandExecutionError where there is that virtual server already, where keepalived keeps it by
    the pillar, or where the kernel refuses it.

    protocol
        ``tcp``, ``udp``, ``sctp`` or ``fwmark``.

    service_address
        Address and port, ``10.10.10.12:80`` or ``[fd00::12]:80``; the port may be the name of a
        service. With ``fwmark`` the firewall mark, a number, or ``7 -6`` for IPv6.

    scheduler
        How real servers are chosen: ``rr``, ``wrr``, ``wlc``, ``sh`` ... (see ipvsadm(8)).

    CLI Example:

    .. code-block:: bash

        salt lb1 lvs.add_service tcp 10.10.10.12:80 rr
    """
    key = ipvsadm.virtual_server_key(protocol, service_address)
    if key.protocol and not key.port:
        raise errors.InvalidConfig("service_address", service_address, "an address with a port")
    wanted = replace(model.VirtualServer.empty(key), scheduler=_scheduler(scheduler))

    def added(current):
        if current is not None:
            raise errors.WrongState(f"there is {key} already")
        return wanted

    return _changed(key, added)


@_salt_errors
def edit_service(protocol=None, service_address=None, scheduler=None):
    """
    Give a virtual server another scheduler; its persistence and all else stay as they are.

    Returns True, also where it has that scheduler already. Raises as ``lvs.add_service`` does, and
    CommandExecutionError where there is no such virtual server.

    protocol, service_address
        As for ``lvs.add_service``.

    scheduler
        The new one; by default nothing changes.

    CLI Example:

    .. code-block:: bash

        salt lb1 lvs.edit_service tcp 10.10.10.12:80 wlc
    """
    key = ipvsadm.virtual_server_key(protocol, service_address)

    def edited(current):
        server = _there(current, key)
        return replace(server, scheduler=_scheduler(scheduler)) if scheduler else server

    return _changed(key, edited)


@_salt_errors
def check_service(protocol=None, service_address=None, **kwargs):
    """
    Tell whether a virtual server is in the kernel's IPVS table.

    Returns True or False. Raises SaltInvocationError for an argument that cannot be right.

    protocol, service_address
        As for ``lvs.add_service``.

    scheduler
        Whether it has this scheduler too.

    CLI Example:

    .. code-block:: bash

        salt lb1 lvs.check_service tcp 10.10.10.12:80 scheduler=wlc
    """
    scheduler = _named(kwargs, "scheduler")["scheduler"]
    server = _read(ipvsadm.virtual_server_key(protocol, service_address))
    return server is not None and scheduler in (None, "", server.scheduler)


@_salt_errors
def add_server(
    protocol=None,
    service_address=None,
    server_address=None,
    packet_forward_method="dr",
    weight=1,
    **kwargs,
):
    """
    Add a real server to a virtual server.

    Returns True. Raises as ``lvs.add_service`` does, and CommandExecutionError where there is no
    such virtual server, or it has that real server already.

    protocol, service_address
        The virtual server, as for ``lvs.add_service``.

    server_address
        Address and port of the real server. Without a port it is the virtual server's, and with
        ``dr`` and ``tunnel`` it always is, whatever is written here: they rewrite no ports.

    packet_forward_method
        ``dr`` (direct routing), ``tunnel`` or ``nat``.

    weight
        Its share of new connections, 0 to 2147483647; 0 takes no new ones.

    CLI Example:

    .. code-block:: bash

        salt lb1 lvs.add_server tcp 10.10.10.12:80 10.10.10.41:80 dr 10
    """
    _named(kwargs)
    key = ipvsadm.virtual_server_key(protocol, service_address)
    asked = ipvsadm.real_server_key(server_address, key)
    forward = _forward(packet_forward_method) or model.Forward.DIRECT
    weight = 1 if _weight(weight) is None else _weight(weight)
    wanted = model.RealServer(tables.settled(asked, forward, key), forward, weight)

    def added(current):
        server = _there(current, key)
        if any(real.key == wanted.key for real in server.real_servers):
            raise errors.WrongState(f"{key} has a real server {wanted.key} already")
        return _with(server, wanted)

    return _changed(key, added)


@_salt_errors
def edit_server(
    protocol=None,
    service_address=None,
    server_address=None,
    packet_forward_method=None,
    weight=None,
    **kwargs,
):
    """
    Change the weight or the way of forwarding of a real server; what is not named stays.

    Returns True, also where nothing had to change. Raises as ``lvs.add_service`` does, and
    CommandExecutionError where there is no such virtual server or real server.

    protocol, service_address, server_address, packet_forward_method, weight
        As for ``lvs.add_server``, but by default neither the way of forwarding nor the weight
        changes.

    CLI Example:

    .. code-block:: bash

        salt lb1 lvs.edit_server tcp 10.10.10.12:80 10.10.10.41:80 weight=0
    """
    _named(kwargs)
    key = ipvsadm.virtual_server_key(protocol, service_address)
    asked = ipvsadm.real_server_key(server_address, key)
    forward, weight = _forward(packet_forward_method), _weight(weight)

    def edited(current):
        server = _there(current, key)
        real = _held(server, asked)
        return _with(server, _edited(real, asked, key, forward, weight), instead_of=real)

    return _changed(key, edited)


@_salt_errors
def check_server(protocol=None, service_address=None, server_address=None, **kwargs):
    """
    Tell whether a virtual server has a real server.

    Returns True or False. Raises SaltInvocationError for an argument that cannot be right.

    protocol, service_address, server_address
        As for ``lvs.add_server``.

    packet_forward_method, weight
        Whether it has these too.

    CLI Example:

    .. code-block:: bash

        salt lb1 lvs.check_server tcp 10.10.10.12:80 10.10.10.41:80 weight=0
    """
    named = _named(kwargs, "packet_forward_method", "weight")
    key = ipvsadm.virtual_server_key(protocol, service_address)
    asked = ipvsadm.real_server_key(server_address, key)
    forward, weight = _forward(named["packet_forward_method"]), _weight(named["weight"])
    server = _read(key)
    real = ipvsadm.find(server, asked) if server else None
    if real is None:
        return False
    return real == _edited(real, asked, key, forward, weight)


@_salt_errors
def check_changeable(protocol=None, service_address=None):
    """
    Check that a virtual server may be changed by hand, be it in the kernel's table or not.

    Returns True. Raises SaltInvocationError for an argument that cannot be right, and
    CommandExecutionError where keepalived keeps it by the pillar.

    protocol, service_address
        As for ``lvs.add_service``.

    CLI Example:

    .. code-block:: bash

        salt lb1 lvs.check_changeable tcp 10.10.10.12:80
    """
    key = ipvsadm.virtual_server_key(protocol, service_address)
    if key in _kept():
        raise errors.KeptElsewhere.virtual_server(str(key))
    return True


@_salt_errors
def get_rules():
    """
    Return the IPVS table as text that ``ipvsadm -R`` and ``ipvs.restore`` read.

    It is in the form of ``ipvsadm -S -n``, and has thresholds too. Without IPVS in the kernel it is
    empty.

    CLI Example:

    .. code-block:: bash

        salt lb1 lvs.get_rules
    """
    servers = ipvs.read().table.values() if ipvs.loaded() else ()
    return ipvsadm.write(servers).rstrip("\n")


@_salt_errors
def list_(protocol=None, service_address=None):
    """
    Return the IPVS table, with connections, as ``ipvsadm -L -n`` shows it.

    The text is for eyes; ``ipvs.list`` returns values. Raises CommandExecutionError where the
    kernel has no IPVS, or no such virtual server.

    protocol, service_address
        One virtual server, as for ``lvs.add_service``; by default all.

    CLI Example:

    .. code-block:: bash

        salt lb1 lvs.list
    """
    if service_address:
        key = ipvsadm.virtual_server_key(protocol, service_address)
        snapshot = ipvs.read([key])
        head = ""
        _there(snapshot.table.get(key), key)
    else:
        snapshot = ipvs.read()
        info = settings.read_info()
        head = f"IP Virtual Server version {info.version} (size={info.connection_table_size})\n"
    connections = {
        server: (counted.active, counted.inactive)
        for server, counted in snapshot.connections.items()
    }
    return (head + ipvsadm.listing(snapshot.table.values(), connections)).strip()


@_salt_errors
def zero(protocol=None, service_address=None):
    """
    Set the counters of connections, packets and bytes to zero.

    Returns True. Raises CommandExecutionError where the kernel has no IPVS, or no such virtual
    server.

    protocol, service_address
        One virtual server and its real servers, as for ``lvs.add_service``; by default all.

    CLI Example:

    .. code-block:: bash

        salt lb1 lvs.zero tcp 10.10.10.12:80
    """
    key = ipvsadm.virtual_server_key(protocol, service_address) if service_address else None
    settings.zero(key)
    return True


@_salt_errors
def delete_server(protocol=None, service_address=None, server_address=None):
    """
    Take a real server out of a virtual server; its connections end.

    Returns True. Raises as ``lvs.add_service`` does, and CommandExecutionError where there is no
    such virtual server or real server.

    protocol, service_address, server_address
        As for ``lvs.add_server``.

    CLI Example:

    .. code-block:: bash

        salt lb1 lvs.delete_server tcp 10.10.10.12:80 10.10.10.41:80
    """
    key = ipvsadm.virtual_server_key(protocol, service_address)
    asked = ipvsadm.real_server_key(server_address, key)

    def deleted(current):
        server = _there(current, key)
        return _with(server, instead_of=_held(server, asked))

    return _changed(key, deleted)


@_salt_errors
def delete_service(protocol=None, service_address=None):
    """
    Delete a virtual server with its real servers; their connections end.

    Returns True. Raises as ``lvs.add_service`` does, and CommandExecutionError where there is no
    such virtual server.

    protocol, service_address
        As for ``lvs.add_service``.

    CLI Example:

    .. code-block:: bash

        salt lb1 lvs.delete_service tcp 10.10.10.12:80
    """
    key = ipvsadm.virtual_server_key(protocol, service_address)

    def deleted(current):
        _there(current, key)

    return _changed(key, deleted)


@_salt_errors
def clear():
    """
    Delete all virtual servers; all connections end.

    Returns True. Raises CommandExecutionError, and deletes nothing, where keepalived keeps one of
    them by the pillar.

    CLI Example:

    .. code-block:: bash

        salt lb1 lvs.clear
    """
    if not ipvs.loaded():
        return True
    kept = _kept()
    found = [str(key) for key in ipvs.read().table if key in kept]
    if found:
        raise errors.KeptElsewhere.virtual_server(", ".join(found))
    _expect_done(ipvs.apply({}, purge=True, leave=kept))
    return True


def _changed(key, change):
    _expect_done(ipvs.edit(key, change, leave=_kept()))
    return True


def _expect_done(outcome):
    if outcome.left:
        left = ", ".join(str(op) for op in outcome.left)
        raise errors.LvsError(f"another program changes the IPVS table too; missing: {left}")


def _kept():
    """The virtual servers that keepalived keeps.

    Whoever used Salt's own lvs module may have a pillar ``lvs`` of another shape: it is only read
    as ours where it speaks of keepalived as ours does.
    """
    pillar = __pillar__.get("lvs")
    servers = pillar.get("virtual_servers") if isinstance(pillar, Mapping) else None
    values = servers.values() if isinstance(servers, Mapping) else ()
    ours = [value.get("managed_by") for value in values if isinstance(value, Mapping)]
    return _cluster().keepalived_keys() if "keepalived" in ours else frozenset()


def _read(key):
    return ipvs.read([key]).table.get(key) if ipvs.loaded() else None


def _there(server, key):
    if server is None:
        raise errors.WrongState(f"there is no {key}")
    return server


def _held(server, asked):
    real = ipvsadm.find(server, asked)
    if real is None:
        raise errors.WrongState(f"{server.key} has no real server {asked}")
    return real


def _with(server, *added, instead_of=None):
    """A virtual server with another real server, or with one instead of another."""
    gone = {real.key for real in (instead_of, *added) if real}
    left = [real for real in server.real_servers if real.key not in gone]
    return replace(server, real_servers=model.in_order([*left, *added]))


def _edited(real, asked, key, forward, weight):
    """A real server with another way of forwarding, and with it perhaps a port, or weight."""
    if weight is not None:
        real = replace(real, weight=weight)
    # The kernel decides which addresses are its own, and does not forward to them.
    if forward in (None, real.forward) or real.forward is model.Forward.LOCAL:
        return real
    # What a tunnel was made of does not outlive it.
    limits = (real.upper_threshold, real.lower_threshold)
    return model.RealServer(tables.settled(asked, forward, key), forward, real.weight, *limits)


def _named(kwargs, *names):
    """The arguments that were given by name; those of a job (``__pub_user`` ...) are nobody's."""
    given = {name: value for name, value in kwargs.items() if not name.startswith("__")}
    for name in given:
        if name not in names:
            raise errors.InvalidConfig(name, given[name], f"left out{_or_one_of(names)}")
    return {name: given.get(name) for name in names}


def _or_one_of(names):
    return f", or one of {', '.join(names)}" if names else ""


def _scheduler(value):
    if not value:
        return model.Scheduler.WLC.value
    if isinstance(value, str) and re.fullmatch(tables.MODULE_NAME, value):
        return value
    raise errors.InvalidConfig("scheduler", value, "the name of a scheduler such as wlc")


def _forward(value):
    """How packets are forwarded, or None where nothing was said."""
    if not value:
        return None
    if isinstance(value, str) and value in _FORWARDS:
        return _FORWARDS[value]
    raise errors.InvalidConfig("packet_forward_method", value, "dr, tunnel or nat")


def _weight(value):
    """A weight, as a number or in digits, or None where nothing was said."""
    if value in (None, ""):
        return None
    text = str(value) if type(value) in (int, str) else ""
    if re.fullmatch("[0-9]{1,10}", text) and int(text) <= tables.HEAVIEST:
        return int(text)
    raise errors.InvalidConfig("weight", value, f"a whole number from 0 to {tables.HEAVIEST}")


# --------------------------------------------------------------------------------------------------
# The beacon real_server


@_salt_errors
def watch_health(beacon="real_server", repeat=30, gather=healthwatch.GATHER_SECONDS):
    """
    Keep a watcher running for the beacon ``real_server``, and return the events that it could not
    send.

    The watcher is a thread of the minion's own process: it asks this director's real servers as the
    pillar says, sets the weights that follow where ``reaction`` is ``local`` or ``both``, and sends
    its events the way that a beacon's go. It ends ten minutes after the last call. A wrong pillar
    is logged once, and the last right one is kept to. Without a pillar it goes by what was applied
    here last, and this asks the minion, every five seconds, to make its beacons anew.

    beacon
        The name of the beacon that asks.

    repeat
        Seconds between two events that tell the whole state.

    gather
        Seconds between two events that tell changes; the first one is told at once.

    CLI Example:

    .. code-block:: bash

        salt lb1 lvs.watch_health
    """
    memory = watch.memory(beacon, healthwatch.Memory)
    memory.gather = gather
    # With beacons_before_connect Salt keeps the beacons of the moment before it had a pillar, and
    # these never see one, until it is told to make them anew.
    if not __pillar__ and watch.should_ask(memory, time.monotonic()):
        __salt__["event.fire"]({}, "beacons_refresh")
    healthwatch.brief(memory, __pillar__)
    return watch.watch(beacon, healthwatch.Memory, __opts__["id"], repeat, lambda: _sender(beacon))


@_salt_errors
def unwatch_health(beacon="real_server"):
    """
    End the watcher of a beacon in this process. What it knew stays, for the next one.

    For the beacon itself: a job is a process of its own, where no watcher runs, and ends none.

    beacon
        The name of the beacon.

    CLI Example:

    .. code-block:: bash

        salt lb1 lvs.unwatch_health
    """
    watch.unwatch(beacon)


def _sender(beacon):
    """What gets events out at once: on the minion's own bus, as its beacons' returns go."""
    opts = dict(__opts__)
    head = f"salt/beacon/{opts['id']}/{beacon}/"

    def send(told):
        returns = [
            {"tag": head + event.pop("tag"), "data": event, "beacon_name": "real_server"}
            for event in told
        ]
        with salt.utils.event.get_event("minion", opts=opts, listen=False) as bus:
            if not bus.fire_event({"beacons": returns}, "__beacons_return"):
                raise CommandExecutionError("the minion's event bus does not answer")

    return send
