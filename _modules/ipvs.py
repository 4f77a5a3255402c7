"""
The kernel's IPVS table: read it, plan changes to it, make them.

It speaks generic netlink with the kernel by itself; ``ipvsadm`` is not needed. What the table
should hold comes from the pillar, key ``lvs`` (see ``docs/pillar.md``).

:depends: a kernel with IPVS (``modprobe ip_vs``), root
"""

import json
import re

import saltext.lvs
from salt.exceptions import CommandExecutionError, SaltInvocationError

saltext.lvs.refresh(__file__)

from saltext.lvs import (  # noqa: E402 -- the library as it is now on disk
    boot,
    description,
    errors,
    files,
    ipvs,
    ipvsadm,
    model,
    namespaces,
    overlay,
    persistence,
    plan,
    settings,
    wishes,
)
from saltext.lvs import connections as kernels_list  # noqa: E402
from saltext.lvs import stats as statistics  # noqa: E402
from saltext.lvs import sysctls as kernel_settings  # noqa: E402
from saltext.lvs import table as tables  # noqa: E402

__virtualname__ = "ipvs"
__func_alias__ = {"list_": "list", "plan_": "plan", "apply_": "apply"}

_salt_errors = errors.raised_as(SaltInvocationError, CommandExecutionError)


def __virtual__():
    if __grains__["kernel"] != "Linux":
        return False, "IPVS is a part of Linux"
    return __virtualname__


@_salt_errors
def list_(netns=None):
    """
    Return the IPVS table as the kernel holds it.

    A mapping by virtual server (``tcp 10.10.10.10:80``, ``fwmark 7``) of its settings, times in
    seconds; its ``real_servers``, a mapping by address and port, tell ``forward``, ``weight``, the
    thresholds (in connections; 0 is none) and how many connections each carries:
    ``active_connections``, ``inactive_connections`` and ``persistent_connections`` (clients that
    persistence keeps with it).

    netns
        A network namespace, by its name or path; by default the minion's own. The same for every
        function of this module.

    Raises CommandExecutionError where the kernel has no IPVS.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' ipvs.list
    """
    return _listed(namespaces.within(netns, ipvs.read))


@_salt_errors
def get(virtual_server, netns=None):
    """
    Return one virtual server as ``ipvs.list`` tells it; empty where there is no such one.

    virtual_server
        Its name in the pillar (``web``), or as ``ipvs.list`` names it: ``tcp 10.10.10.10:80``,
        ``udp [fd00::10]:53``, ``fwmark 7``, ``fwmark 7 (IPv6)``. Without a protocol tcp is meant.

    Raises CommandExecutionError where the kernel has no IPVS, SaltInvocationError for what names
    no virtual server.

    CLI Example:

    .. code-block:: bash

        salt lb1 ipvs.get 'tcp 10.10.10.10:80'
    """
    key = _named_key(virtual_server)
    return _listed(namespaces.within(netns, lambda: ipvs.read([key]))).get(str(key), {})


@_salt_errors
def plan_(cluster=None, purge=None, table=None, absent=(), netns=None):
    """
    Return what :py:func:`ipvs.apply <saltext.lvs.modules.ipvs.apply_>` would do now, and change
    nothing.

    The answer has ``operations``, sentences in the order in which they would be carried out, and
    ``changes``, an ``old`` and a ``new`` for each virtual server and real server. Both are empty
    when the table is as it should be. ``loaded`` tells whether the kernel has IPVS loaded; where it
    has not, the table counts as empty. ``notes`` are sentences that tell what will not be as the
    pillar has it, and why: a real server that the beacon ``real_server`` has found dead keeps
    weight 0, one that an operator has drained too (``lvs.drain``).

    cluster
        The cluster, in the form of the pillar's ``lvs``, and nothing else; by default that pillar,
        with what checks and operators say of it.

    purge
        Whether virtual servers that the cluster does not name would be deleted; by default the
        cluster's ``purge``, and False for a *table*.

    table
        A table in the form of ``ipvs.save``, instead of a cluster: this can be said on any minion.

    absent
        Virtual servers to delete, named as for ``ipvs.get``; with *table*.

    Raises SaltInvocationError for a wrong pillar or table, CommandExecutionError on a minion that
    is no director.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' ipvs.plan
    """
    wanted, adjust = _wanted(cluster, purge, table, absent, netns)
    return {**_planned(wanted, netns, adjust), "loaded": ipvs.loaded(), "notes": adjust.notes}


@_salt_errors
def apply_(cluster=None, purge=None, table=None, absent=(), netns=None):
    """
    Make the kernel's IPVS table hold what the cluster says, and read it back.

    Nothing is flushed: what is right stays untouched, real servers are added before others go, and
    open connections to real servers that remain live on. The answer has ``operations`` and
    ``changes`` as of ``ipvs.plan``, but of what really changed, and ``left``: operations that are
    missing still because another program writes to the table too. ``notes`` are as of
    ``ipvs.plan``.

    cluster, purge, table, absent
        As for ``ipvs.plan``.

    Raises what ``ipvs.plan`` does, and CommandExecutionError where the kernel has no IPVS or
    refuses an operation; the others have been carried out then, and the next apply completes it.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' ipvs.apply
    """
    wanted, adjust = _wanted(cluster, purge, table, absent, netns)
    done = _done(namespaces.within(netns, lambda: ipvs.apply(**wanted, adjust=adjust)))
    return {**done, "notes": adjust.notes}


@_salt_errors
def add_virtual_server(
    virtual_server,
    scheduler="wlc",
    persistence=0,
    netmask=None,
    one_packet=False,
    scheduler_flags=(),
    persistence_engine="",
    netns=None,
    force=False,
):
    """
    Add a virtual server to the kernel's table, without real servers.

    The pillar knows nothing of it: a later ``ipvs.apply`` with ``purge`` deletes it again. Returns
    ``operations``, ``changes`` and ``left`` as ``ipvs.apply`` does.

    virtual_server
        As for ``ipvs.get``.

    scheduler
        Which module chooses the real server: ``wlc``, ``rr``, ``sh``, ``mh`` ...

    persistence
        Seconds for which a client stays with its real server; 0 is none.

    netmask
        Prefix length up to which clients count as one for persistence; by default each is its own.

    one_packet
        Schedule each UDP datagram by itself.

    scheduler_flags
        The scheduler's switches: ``fallback`` and ``port`` of ``sh`` and ``mh``, ``flag-3``.

    persistence_engine
        ``sip`` keeps a SIP call with its real server, by its Call-ID; empty for none.

    force
        Also where keepalived keeps it, as the pillar says: keepalived does not see the change, and
        undoes it when it next has something to do there. The same for every function that changes
        a virtual server or a real server.

    Raises SaltInvocationError for a wrong value, CommandExecutionError where it is there already,
    and what ``ipvs.apply`` raises.

    CLI Example:

    .. code-block:: bash

        salt lb1 ipvs.add_virtual_server 'udp 10.10.10.10:53' scheduler=rr one_packet=True
    """
    cluster = _cluster()
    key = _key(virtual_server, cluster)
    given = _given(
        scheduler=scheduler,
        persistence=persistence,
        netmask=netmask,
        one_packet=one_packet,
        scheduler_flags=scheduler_flags,
        persistence_engine=persistence_engine,
    )

    def added(current):
        if current is not None:
            raise errors.WrongState(f"{key} is there already; ipvs.set_virtual_server changes it")
        return tables.with_settings(model.VirtualServer.empty(key), given)

    return _edited(key, added, netns, cluster, force)


@_salt_errors
def set_virtual_server(
    virtual_server,
    scheduler=None,
    persistence=None,
    netmask=None,
    one_packet=None,
    scheduler_flags=None,
    persistence_engine=None,
    netns=None,
    force=False,
):
    """
    Change settings of a virtual server in the kernel's table. What is not named stays as it is, and
    so do its real servers and their connections.

    The pillar knows nothing of it: the next ``ipvs.apply`` sets back what the pillar says
    otherwise. Arguments, returns and errors as for ``ipvs.add_virtual_server``, but the virtual
    server must be there.

    CLI Example:

    .. code-block:: bash

        salt lb1 ipvs.set_virtual_server web persistence=300
    """
    cluster = _cluster()
    key = _key(virtual_server, cluster)
    given = _given(
        scheduler=scheduler,
        persistence=persistence,
        netmask=netmask,
        one_packet=one_packet,
        scheduler_flags=scheduler_flags,
        persistence_engine=persistence_engine,
    )
    return _edited(
        key,
        lambda current: tables.with_settings(_there(current, key), given),
        netns,
        cluster,
        force,
    )


@_salt_errors
def delete_virtual_server(virtual_server, netns=None, force=False):
    """
    Delete a virtual server, with its real servers, from the kernel's table. Its connections are
    cut. One that is not there is no error.

    Arguments, returns and errors as for ``ipvs.get`` and ``ipvs.apply``.

    CLI Example:

    .. code-block:: bash

        salt lb1 ipvs.delete_virtual_server 'udp 10.10.10.10:53'
    """
    cluster = _cluster()
    return _edited(_key(virtual_server, cluster), lambda current: None, netns, cluster, force)


@_salt_errors
def add_real_server(
    virtual_server,
    real_server,
    forward="direct",
    weight=1,
    upper_threshold=0,
    lower_threshold=0,
    tunnel_type=None,
    tunnel_port=None,
    tunnel_checksum=None,
    netns=None,
    force=False,
):
    """
    Add a real server to a virtual server in the kernel's table.

    The pillar knows nothing of it: the next ``ipvs.apply`` takes it out where the pillar names the
    virtual server. Returns ``operations``, ``changes`` and ``left`` as ``ipvs.apply`` does.

    virtual_server
        As for ``ipvs.get``.

    real_server
        Its name in the pillar (``rs1``), or its address and port. Where packets keep their port
        (``direct``, ``tunnel``) that is the virtual server's, whatever is written.

    forward
        ``direct``, ``masq`` or ``tunnel``.

    weight
        Its share of new connections, 0 to 65535; 0 is drained.

    upper_threshold, lower_threshold
        Number of connections at which it gets no new ones, and at which it gets them again; 0 is
        none.

    tunnel_type
        ``ipip``, ``gue`` or ``gre``.

    tunnel_port
        The UDP port of a ``gue`` tunnel on the real server.

    tunnel_checksum
        ``none``, ``csum``, or ``remcsum`` (``gue`` only).

    Raises SaltInvocationError for a wrong value, CommandExecutionError where the real server is
    there already or the virtual server is not, and what ``ipvs.apply`` raises.

    CLI Example:

    .. code-block:: bash

        salt lb1 ipvs.add_real_server web 10.10.10.43 weight=10
    """
    cluster = _cluster()
    key = _key(virtual_server, cluster)
    given = _given(
        forward=forward,
        weight=weight,
        upper_threshold=upper_threshold,
        lower_threshold=lower_threshold,
        tunnel_type=tunnel_type,
        tunnel_port=tunnel_port,
        tunnel_checksum=tunnel_checksum,
    )

    spelt = _spelt(real_server, cluster)

    def added(current):
        real = _real_key(spelt, key, forward)
        if any(held.key == real for held in _there(current, key).real_servers):
            raise errors.WrongState(
                f"{real} of {key} is there already; ipvs.set_real_server changes it"
            )
        return tables.with_real_server(current, real, given)

    return _edited(key, added, netns, cluster, force)


@_salt_errors
def set_real_server(
    virtual_server,
    real_server,
    forward=None,
    weight=None,
    upper_threshold=None,
    lower_threshold=None,
    tunnel_type=None,
    tunnel_port=None,
    tunnel_checksum=None,
    netns=None,
    force=False,
):
    """
    Change settings of a real server in the kernel's table. What is not named stays as it is, and so
    do its connections.

    The pillar knows nothing of it: the next ``ipvs.apply`` sets it back. Arguments, returns and
    errors as for ``ipvs.add_real_server``, but the real server must be there.

    CLI Example:

    .. code-block:: bash

        salt lb1 ipvs.set_real_server web rs1 upper_threshold=1000 lower_threshold=900
    """
    cluster = _cluster()
    key = _key(virtual_server, cluster)
    given = _given(
        forward=forward,
        weight=weight,
        upper_threshold=upper_threshold,
        lower_threshold=lower_threshold,
        tunnel_type=tunnel_type,
        tunnel_port=tunnel_port,
        tunnel_checksum=tunnel_checksum,
    )

    spelt = _spelt(real_server, cluster)

    def changed(current):
        held = _held(_there(current, key), spelt)
        return tables.with_real_server(current, held.key, given)

    return _edited(key, changed, netns, cluster, force)


@_salt_errors
def delete_real_server(virtual_server, real_server, netns=None, force=False):
    """
    Take a real server out of a virtual server in the kernel's table. Its connections are cut:
    ``ipvs.set_weight`` with 0 lets them end. One that is not there is no error.

    Arguments, returns and errors as for ``ipvs.add_real_server``.

    CLI Example:

    .. code-block:: bash

        salt lb1 ipvs.delete_real_server web 10.10.10.43
    """
    cluster = _cluster()
    key = _key(virtual_server, cluster)

    spelt = _spelt(real_server, cluster)

    def taken_out(current):
        if current is None or not tables.find_real_servers(current, spelt):
            return current
        return tables.without_real_server(current, _held(current, spelt).key)

    return _edited(key, taken_out, netns, cluster, force)


@_salt_errors
def set_weight(virtual_server, real_server, weight, netns=None, force=False):
    """
    Set the weight of a real server in the kernel's table, and nothing else.

    This is the raw door: nobody remembers it, and the next ``ipvs.apply`` or highstate sets back
    what the pillar says. ``lvs.drain`` and ``lvs.set_weight`` last.
    Returns ``operations``, ``changes`` and ``left`` as ``ipvs.apply`` does.

    virtual_server, real_server
        As for ``ipvs.add_real_server``.

    weight
        0 to 65535. With 0 it gets no new connections and keeps those that it has.

    Raises what ``ipvs.set_real_server`` does.

    CLI Example:

    .. code-block:: bash

        salt lb1 ipvs.set_weight web rs1 0
    """
    if weight is None:
        raise errors.InvalidConfig("weight", None, "a whole number from 0 to 65535")
    return set_real_server(virtual_server, real_server, weight=weight, netns=netns, force=force)


@_salt_errors
def save(path=None, netns=None):
    """
    Return the whole IPVS table in a form that ``ipvs.restore`` takes; unlike ``ipvsadm -S`` it
    loses nothing, thresholds and tunnels included.

    path
        Write it to this file (JSON, readable for root only) and return the path instead.

    Raises CommandExecutionError where the kernel has no IPVS, where another program kept changing
    the table while it was read, or where the file cannot be written.

    CLI Example:

    .. code-block:: bash

        salt lb1 ipvs.save /root/ipvs.json
    """
    if path is not None:
        _absolute(path)
    snapshot = namespaces.within(netns, ipvs.read)
    if not snapshot.settled:
        raise errors.WrongState("another program changes the table all the time; try once more")
    table = snapshot.table.as_data()
    if path is None:
        return table
    files.write(path, json.dumps(table, indent=2) + "\n")
    return path


@_salt_errors
def restore(table=None, path=None, purge=False, test=False, netns=None):
    """
    Make the kernel's table hold what ``ipvs.save`` or ``ipvsadm -S -n`` wrote.

    What is right already is not touched, and the rest goes by plan: no connection is dropped that
    need not be. Returns ``operations``, ``changes`` and ``left`` as ``ipvs.apply`` does, and
    ``left_alone``: the virtual servers that are in it but kept by keepalived, as the pillar says.

    table
        A mapping as of ``ipvs.save``, or text as of ``ipvsadm -S -n`` or for ``ipvsadm -R``.

    path
        A file on the minion with either of the two, instead. What is wrong in it is told by its
        line, and not quoted: it might be another file than was meant.

    purge
        Also delete virtual servers that are not in it; it must name one at least.

    test
        Only tell what would be done, as ``ipvs.plan`` does.

    Raises SaltInvocationError for what cannot be read, with its place, and what ``ipvs.apply``
    raises.

    CLI Example:

    .. code-block:: bash

        salt lb1 ipvs.restore path=/root/ipvs.json test=True
    """
    if path is None and table is None:
        raise errors.InvalidConfig("table", None, "given, or a path instead")
    desired = _table_of(table) if path is None else _table_in(path, table)
    if purge and not desired:
        raise errors.InvalidConfig(
            "table" if path is None else path,
            None,
            "a table with one virtual server at least; to delete all: ipvs.flush confirm=True",
        )
    leave = _kept_elsewhere(_cluster())
    wanted = {"desired": desired, "purge": bool(purge), "leave": leave}
    if test:
        done = {**_planned(wanted, netns), "left": []}
    else:
        done = _done(namespaces.within(netns, lambda: ipvs.apply(**wanted)))
    return {**done, "left_alone": [str(key) for key in desired if key in leave]}


@_salt_errors
def plan_at_boot():
    """
    Return what ``ipvs.at_boot`` would do now, and change nothing: ``operations``, sentences, and
    ``changes``, a ``diff`` for each file.

    Raises SaltInvocationError for a wrong pillar, CommandExecutionError for a file that cannot be
    read.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' ipvs.plan_at_boot
    """
    return persistence.told(_planned_at_boot())


@_salt_errors
def at_boot():
    """
    Have the next boot bring back the IPVS table that the pillar asks for, before keepalived starts
    and without Salt: otherwise a director that was rebooted takes the VIPs with an empty table.

    The pillar's virtual servers are written to ``/var/lib/saltext-lvs/ipvs.rules`` in ipvsadm's
    words and for root alone, but for those that keepalived keeps; a unit of systemd, or a script of
    System V where there is none, has ipvsadm read them if the table is empty. That service is
    called ``saltext-lvs-ipvs``, and is enabled. A real server that an operator has drained is so in
    that table too. Beside it the cluster's description is kept, in ``cluster.json`` and without
    passwords: a minion that starts while its master is away watches by that. On a minion that is no
    director any more the files go. The answer is as of ``ipvs.plan_at_boot``, but of what was done.

    Raises what that does, and CommandExecutionError for a file that cannot be written.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' ipvs.at_boot
    """
    # Or a drain that comes meanwhile would be written over.
    with wishes.locked(wishes.WISHES):
        planned = _planned_at_boot()
        boot.write(planned)
    return persistence.told(planned)


def _planned_at_boot():
    cluster = model.from_pillar(__pillar__)
    if model.Role.DIRECTOR not in cluster.roles(__opts__["id"]):
        return boot.plan_absent()
    kept = [description.file_of(__pillar__, __opts__["id"])]
    return boot.plan(overlay.at_boot(cluster).values(), cluster.ipvs.timeouts, kept)


# --------------------------------------------------------------------------------------------------
# What these share


def _listed(snapshot):
    """A table for people: settings, what identifies them in parts, and connections."""
    listed = {}
    for key in sorted(snapshot.table, key=model.VirtualServerKey.sort_key):
        server = snapshot.table[key]
        listed[str(key)] = {**plan.describe_key(key), **tables.describe(server)}
        listed[str(key)]["real_servers"] = {
            str(real.key): {**plan.describe_key(real.key), **tables.describe_real_server(real)}
            for real in server.real_servers
        }
    for (virtual_server, real_server), connections in snapshot.connections.items():
        listed[str(virtual_server)]["real_servers"][str(real_server)].update(
            active_connections=connections.active,
            inactive_connections=connections.inactive,
            persistent_connections=connections.persistent,
        )
    return listed


def _planned(wanted, netns, adjust=None):
    """What an apply would do now; before IPVS is loaded, its table counts as empty."""
    current = namespaces.within(netns, ipvs.read).table if ipvs.loaded() else {}
    if adjust is not None:
        wanted = {**wanted, "desired": adjust(current)}
    return _told(plan.plan(current, **wanted))


class _Adjusted:
    """The pillar's table with what is known of health and wished by operators; says what of it
    was.
    """

    def __init__(self, cluster, base):
        self.cluster, self.base, self.notes = cluster, base, []

    def __call__(self, held):
        if self.cluster is None:
            return self.base
        found = overlay.current(self.cluster, held, self.base)
        self.notes = list(found.notes)
        return found.table


def _done(outcome):
    return {**_told(outcome.ops), "left": [str(op) for op in outcome.left]}


def _told(ops):
    return {"operations": [str(op) for op in ops], "changes": plan.changes(ops)}


def _edited(key, change, netns, cluster, force):
    leave = frozenset() if force else _kept_elsewhere(cluster)
    return _done(namespaces.within(netns, lambda: ipvs.edit(key, change, leave)))


def _cluster():
    """The pillar's cluster; None on a minion that has none, where single functions work too."""
    return model.from_pillar(__pillar__) if __pillar__.get("lvs") else None


def _kept_elsewhere(cluster):
    return cluster.keepalived_keys() if cluster else frozenset()


def _key(virtual_server, cluster):
    """A virtual server by its name in the pillar, or spelt out."""
    if cluster and virtual_server in cluster.virtual_servers:
        return cluster.virtual_servers[virtual_server].key
    return tables.virtual_server_key(virtual_server)


def _named_key(virtual_server):
    """The same for who changes nothing of the table: what is spelt out needs no right pillar."""
    try:
        return tables.virtual_server_key(virtual_server)
    except errors.InvalidConfig:
        return _key(virtual_server, _cluster())


def _spelt(real_server, cluster):
    """A real server that may be named as in the pillar, spelt out."""
    if cluster and real_server in cluster.real_servers:
        return str(cluster.real_servers[real_server].address)
    return real_server


def _real_key(spelt, of, forward):
    how = next((method for method in model.Forward if method.value == forward), None)
    return tables.real_server_key(spelt, of, how or model.Forward.MASQ)


def _held(server, spelt):
    """The real server that was named; an error where there is none, or more than one."""
    found = tables.find_real_servers(server, spelt)
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(str(real.key) for real in found)
        raise errors.WrongState(f"{spelt} is several of {server.key}: {several}; name one")
    raise errors.WrongState(f"{spelt} is no real server of {server.key}")


def _several(names):
    """A list of names, of which one alone may stand for itself."""
    return [names] if isinstance(names, str) else list(names or ())


def _expect_ours(keys, leave):
    """Raise for a virtual server that was named and that keepalived keeps: nothing was done."""
    kept = [str(key) for key in keys if key in leave]
    if kept:
        raise errors.KeptElsewhere.virtual_server(", ".join(kept))


def _there(current, key):
    if current is None:
        raise errors.WrongState(f"there is no virtual server {key}")
    return current


def _given(**values):
    """What was named; a tuple from a default is a list in the plain form."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value is not None
    }


def _table_in(path, table):
    """The table in a file; what is wrong is told without the file's words, which may be secret."""
    if table is not None:
        raise errors.InvalidConfig("table", "given", "left out where a path is given")
    found = files.read(_absolute(path))
    if found is None:
        raise errors.InvalidConfig("path", path, "a file on this minion")
    try:
        return _table_of(found[0])
    except errors.InvalidConfig as error:
        lines = [problem.path for problem in error.problems if problem.path.startswith("line ")]
        where = f"{path}, {lines[0]}" if lines else path
        form = "in the form of ipvs.save or of ipvsadm -S -n"
        raise errors.InvalidConfig(where, errors.MASK, form) from None


def _absolute(path):
    if not isinstance(path, str) or not path.startswith("/"):
        raise errors.InvalidConfig("path", path, "an absolute path on this minion")
    return path


def _table_of(given):
    """A table in either form: a mapping, or text of JSON or of ipvsadm's own."""
    if isinstance(given, str) and given.lstrip().startswith("{"):
        try:
            given = json.loads(given)
        except ValueError as error:
            raise errors.InvalidConfig("table", given[:40], f"JSON: {error}") from error
    if isinstance(given, str):
        return tables.Table.of(ipvsadm.read(given))
    return tables.Table.from_data(given)


def _wanted(cluster, purge, table, absent, netns):
    """What a plan is for: a given table, a given cluster, or the pillar's; only a director has a
    table to keep. And what else is known of it: of the pillar's cluster alone, where this minion
    itself watches.
    """
    if absent and table is None:
        raise errors.InvalidConfig("absent", absent, "left out, or given with a table")
    if table is not None:
        if cluster is not None:
            raise errors.InvalidConfig("cluster", "given", "left out where a table is given")
        pillar = _cluster()
        wanted = {
            "desired": tables.Table.from_data(table),
            "purge": bool(purge),
            "leave": _kept_elsewhere(pillar),
            "absent": [_key(name, pillar) for name in _several(absent)],
        }
        _expect_ours([*wanted["desired"], *wanted["absent"]], wanted["leave"])
        return wanted, _Adjusted(None, wanted["desired"])
    found = model.from_pillar(__pillar__ if cluster is None else {"lvs": cluster})
    found.expect_role(__opts__["id"], model.Role.DIRECTOR)
    base = tables.Table.from_mapping(found.table())
    wanted = {
        "desired": base,
        "purge": found.purge if purge is None else bool(purge),
        "leave": found.keepalived_keys(),
    }
    ours = cluster is None and netns is None
    return wanted, _Adjusted(found if ours else None, base)


# --------------------------------------------------------------------------------------------------
# What went through, and what is open


@_salt_errors
def stats(interval=None, virtual_server=None, netns=None):
    """
    Return what went through each virtual server and each of its real servers.

    A mapping by virtual server of ``connections``, ``incoming_packets``, ``outgoing_packets``,
    ``incoming_bytes`` and ``outgoing_bytes``, counted since it was added or its counters were
    zeroed; ``per_second``, the same as rates; and ``real_servers``, the same again for each. The
    outgoing half is 0 where real servers answer clients by themselves (``direct``, ``tunnel``).

    The kernel gathers its counters every two seconds: between two gatherings they stand still.

    interval
        Seconds to wait, 2 to 60, for rates of just that time: an even number of at least 10 is
        exact to a few percent. By default the rates are the kernel's own, whole numbers that
        follow a change within some ten seconds.

    virtual_server
        Of this one alone, named as for ``ipvs.get``.

    Raises SaltInvocationError for a wrong argument, CommandExecutionError where the kernel has no
    IPVS or no such virtual server.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' ipvs.stats
        salt lb1 ipvs.stats interval=4 virtual_server=web
    """
    seconds = statistics.as_interval(interval)
    only = None if virtual_server is None else _named_key(virtual_server)
    return namespaces.within(netns, lambda: statistics.measure(seconds, only)).as_data()


@_salt_errors
def connections(
    protocol=None,
    client=None,
    virtual_server=None,
    real_server=None,
    state=None,
    offset=0,
    limit=100,
    netns=None,
):
    """
    Return how many connections IPVS keeps, by state and by real server, and a page of them.

    The answer has ``total`` and ``templates`` (those in ``total`` that are no connections, but what
    persistence keeps of a client); ``by_state``; ``by_real_server``, a mapping of such mappings;
    and ``connections``, a list of ``protocol``, ``client``, ``virtual_server``, ``real_server``,
    ``state``, ``expires`` (in seconds, if nothing more is heard), ``template``, and for a
    persistence engine ``persistence_engine`` and ``persistence_data``. All of them count only what
    the filters let pass.

    A million connections take some seconds, and no memory. What comes and goes meanwhile may be
    missing or be there twice, and the order is the kernel's own.

    protocol
        ``tcp``, ``udp``, ``sctp``, ``ah``, ``esp``; ``ip`` for what persistence keeps of a firewall
        mark's clients.

    client
        Their address, or a network: ``10.10.10.100``, ``10.10.10.0/24``.

    virtual_server
        Named as for ``ipvs.get``; also an address, with or without a port. The connections of a
        firewall mark are found by the address that the clients asked for.

    real_server
        Its name in the pillar, or its address, with or without a port.

    state
        ``ESTABLISHED``, ``FIN_WAIT``, ``SYN_RECV`` ..., in any case.

    offset, limit
        Which of them to list: leave out so many, then list at most so many (10,000 at most). With
        0 they are only counted.

    Raises SaltInvocationError for a wrong argument, CommandExecutionError where the kernel has no
    IPVS.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' ipvs.connections limit=0
        salt lb1 ipvs.connections client=10.10.10.0/24 state=established real_server=rs1
    """
    tests = kernels_list.filters(
        protocol, client, _spelt_out(virtual_server), _spelt_out(real_server), state
    )
    page = kernels_list.as_page(offset, limit)
    return namespaces.within(netns, lambda: kernels_list.look(tests, *page)).as_data()


@_salt_errors
def zero(virtual_server=None, netns=None):
    """
    Set the counters of ``ipvs.stats`` to zero; connections are not touched. Returns True.

    virtual_server
        Of this one and its real servers alone, named as for ``ipvs.get``.

    Raises what ``ipvs.stats`` does.

    CLI Example:

    .. code-block:: bash

        salt lb1 ipvs.zero web
    """
    key = None if virtual_server is None else _named_key(virtual_server)
    namespaces.within(netns, lambda: settings.zero(key))
    return True


@_salt_errors
def flush(confirm=False, netns=None):
    """
    Delete all virtual servers from the kernel's table. Their clients are cut off at once, and new
    ones refused.

    Nothing in a cluster's life needs this: ``ipvs.apply`` with ``purge`` deletes what should not be
    there, and to add it all again is slow for the next three minutes. What keepalived keeps by the
    pillar is left alone. Returns ``operations``, ``changes`` and ``left`` as ``ipvs.apply`` does.

    confirm
        Must be True.

    Raises SaltInvocationError without it, CommandExecutionError where the kernel has no IPVS.

    CLI Example:

    .. code-block:: bash

        salt lb1 ipvs.flush confirm=True
    """
    if confirm is not True:
        expected = "True: this deletes every virtual server, whatever the pillar says"
        raise errors.InvalidConfig("confirm", confirm, expected)
    leave = _kept_elsewhere(_cluster())
    return _done(namespaces.within(netns, lambda: settings.flush(leave)))


# --------------------------------------------------------------------------------------------------
# Settings beside the table


@_salt_errors
def info(netns=None):
    """
    Return ``loaded`` (whether the kernel has IPVS), its ``version``, and the
    ``connection_table_size`` in buckets; the last two are None where it is not loaded.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' ipvs.info
    """
    if not ipvs.loaded():
        return {"loaded": False, "version": None, "connection_table_size": None}
    found = namespaces.within(netns, settings.read_info)
    return {
        "loaded": True,
        "version": found.version,
        "connection_table_size": found.connection_table_size,
    }


@_salt_errors
def timeouts(netns=None):
    """
    Return after how many seconds of silence IPVS forgets a connection: ``tcp`` (established),
    ``tcpfin`` (one end closed) and ``udp``.

    Raises CommandExecutionError where the kernel has no IPVS.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' ipvs.timeouts
    """
    return namespaces.within(netns, settings.read_timeouts).as_data()


@_salt_errors
def set_timeouts(tcp=None, tcpfin=None, udp=None, test=False, netns=None):
    """
    Set after how many seconds of silence IPVS forgets a connection; what is not named stays.

    Returns ``changes``, an ``old`` and a ``new`` for each timeout that changed. Connections that
    are open go by the new timeouts from their next packet on.

    tcp
        For an established TCP connection. Longer than any pause in it: a client that speaks later
        is reset.

    tcpfin
        For a TCP connection of which one end is closed.

    udp
        For a UDP client and its real server.

    test
        Only tell what would change. Where the kernel has no IPVS yet, ``old`` is None.

    Raises SaltInvocationError for what is no number of seconds from 1 to 2,147,483,
    CommandExecutionError where the kernel has no IPVS.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' ipvs.set_timeouts tcp=900 udp=300
    """
    wanted = settings.wanted_timeouts({"tcp": tcp, "tcpfin": tcpfin, "udp": udp})
    act = settings.plan_timeouts if test else settings.set_timeouts
    before, after = namespaces.within(netns, lambda: act(wanted))
    old = before.as_data() if before else {}
    return {
        "changes": {
            name: {"old": old.get(name), "new": value}
            for name, value in after.as_data().items()
            if name in wanted and old.get(name) != value
        }
    }


@_salt_errors
def sync_daemons(netns=None):
    """
    Return the daemons that synchronize connections between directors, by state: ``master`` (tells
    of its connections) and ``backup`` (learns them), where they run.

    Each has ``interface``, ``syncid``, ``multicast_group``, ``port``, ``ttl`` and ``maxlen`` (bytes
    in a message, at most). keepalived's are told too.

    Raises CommandExecutionError where the kernel has no IPVS.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' ipvs.sync_daemons
    """
    running = namespaces.within(netns, settings.read_sync_daemons)
    return {state.value: _daemon(daemon) for state, daemon in running.items()}


@_salt_errors
def start_sync_daemon(
    state,
    interface,
    syncid=0,
    multicast_group=None,
    port=None,
    ttl=None,
    maxlen=None,
    test=False,
    netns=None,
):
    """
    Let a daemon run that synchronizes connections between directors.

    One that runs with these settings already is left alone, one with others is started anew: the
    kernel cannot change a setting. Returns ``changes``, the daemon's ``old`` and ``new`` settings
    by its state, and a ``comment``.

    state
        ``master`` or ``backup``; both may run at the same time.

    interface
        The network interface on which it sends, or listens.

    syncid
        0 to 255. A backup listens to masters of its own number; one with 0 to all of them.

    multicast_group
        A multicast address, IPv4 or IPv6; by default 224.0.0.81.

    port
        UDP port, 8848 by default.

    ttl
        How many routers the messages may pass, plus one; by default 1, so none.

    maxlen
        Bytes in one message, at most; by default what fits the interface.

    test
        Only tell what would change.

    Raises SaltInvocationError for a wrong value, CommandExecutionError where the pillar gives this
    director's keepalived a sync daemon, and where the kernel has no IPVS or no such interface.

    CLI Example:

    .. code-block:: bash

        salt lb1 ipvs.start_sync_daemon backup eth0 syncid=10
    """
    wanted = settings.SyncDaemon.from_data(
        {
            "state": state,
            "interface": interface,
            "syncid": syncid,
            "multicast_group": multicast_group,
            "port": port,
            "ttl": ttl,
            "maxlen": maxlen,
        }
    )
    _expect_own_sync_daemons()
    act = settings.plan_sync_daemon if test else settings.start_sync_daemon
    before, after = namespaces.within(netns, lambda: act(wanted))
    subject = f"The {wanted.state.value} sync daemon"
    if before == after:
        return {"changes": {}, "comment": f"{subject} runs with these settings already."}
    done = "is to be started" if test else "was started"
    how = " anew, with other settings" if before else ""
    return {
        "changes": {wanted.state.value: {"old": _daemon(before), "new": _daemon(after)}},
        "comment": f"{subject} {done}{how}.",
    }


@_salt_errors
def stop_sync_daemon(state, test=False, netns=None):
    """
    Stop a daemon that synchronizes connections between directors. One that does not run is no
    error. Returns ``changes`` and a ``comment`` as ``ipvs.start_sync_daemon`` does.

    state
        ``master`` or ``backup``.

    test
        Only tell what would change.

    Raises what ``ipvs.start_sync_daemon`` does.

    CLI Example:

    .. code-block:: bash

        salt lb1 ipvs.stop_sync_daemon backup
    """
    wanted = settings.sync_state(state)
    _expect_own_sync_daemons()
    act = settings.plan_no_sync_daemon if test else settings.stop_sync_daemon
    before = namespaces.within(netns, lambda: act(wanted))
    subject = f"The {wanted.value} sync daemon"
    if before is None:
        return {"changes": {}, "comment": f"{subject} does not run."}
    return {
        "changes": {wanted.value: {"old": _daemon(before), "new": None}},
        "comment": f"{subject} {'is to be stopped' if test else 'was stopped'}.",
    }


@_salt_errors
def sysctls(settings=None, netns=None):
    """
    Return IPVS's own kernel settings, ``net.ipv4.vs.*``: what they are, what they should be, and
    why.

    A mapping by name of ``now``, ``wanted`` (None: left as it is), ``default`` (the kernel's, None
    where it goes by the machine) and ``reason``. ``now`` is None for a setting that this kernel
    does not have, and for all of them before IPVS is loaded.

    settings
        What you want beside the few that this extension keeps, or instead: a mapping of names to
        values; None leaves one as it is. The state ``ipvs.sysctls`` keeps them.

    Raises SaltInvocationError for what is no name or no value of a setting.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' ipvs.sysctls
        salt lb1 ipvs.sysctls '{sync_threshold: 3 100, expire_nodest_conn: null}'
    """
    wanted = kernel_settings.of_director(settings)
    now = namespaces.within(netns, kernel_settings.read_ipvs)
    known = {line.name: ("0", line.reason) for line in kernel_settings.DIRECTOR}
    known.update(
        {line.name: (line.default, line.reason) for line in kernel_settings.DIRECTOR_UNTOUCHED}
    )
    return {
        name: {
            "now": now.get(name),
            "wanted": wanted.get(name),
            "default": known.get(name, ("", ""))[0] or None,
            "reason": known.get(name, ("", ""))[1],
        }
        for name in {**known, **now, **wanted}
    }


def _daemon(daemon):
    """A sync daemon's settings; its state is the key that they stand under."""
    if daemon is None:
        return None
    return {name: value for name, value in daemon.as_data().items() if name != "state"}


def _expect_own_sync_daemons():
    """keepalived starts and stops its sync daemon with each failover: not under its hands."""
    cluster = _cluster()
    if cluster and cluster.sync_daemon and __opts__["id"] in cluster.directors:
        raise errors.KeptElsewhere("the sync daemon")


def _spelt_out(server):
    """A virtual server or real server of the pillar, by its name, as the kernel knows it."""
    # An address is no name of the pillar's, and this must work while that is wrong.
    if server is None or not re.fullmatch(r"[A-Za-z_][\w-]*", str(server)):
        return server
    cluster = _cluster()
    if cluster and server in cluster.virtual_servers:
        return str(cluster.virtual_servers[server].key)
    if cluster and server in cluster.real_servers:
        return str(cluster.real_servers[server].address)
    return server
