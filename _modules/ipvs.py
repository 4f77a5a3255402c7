"""
The kernel's IPVS table: read it, plan changes to it, make them.

It speaks generic netlink with the kernel by itself; ``ipvsadm`` is not needed. What the table
should hold comes from the pillar, key ``lvs`` (see ``docs/pillar.md``).

:depends: a kernel with IPVS (``modprobe ip_vs``), root
"""

import saltext.lvs
from salt.exceptions import CommandExecutionError, SaltInvocationError

saltext.lvs.refresh(__file__)

from saltext.lvs import errors, ipvs, model, plan  # noqa: E402 -- the library as it is now on disk

__virtualname__ = "ipvs"
__func_alias__ = {"list_": "list", "plan_": "plan", "apply_": "apply"}

_salt_errors = errors.raised_as(SaltInvocationError, CommandExecutionError)


def __virtual__():
    if __grains__["kernel"] != "Linux":
        return False, "IPVS is a part of Linux"
    return __virtualname__


@_salt_errors
def list_():
    """
    Return the IPVS table as the kernel holds it.

    A mapping by virtual server (``tcp 10.10.10.10:80``, ``fwmark 7``) of its settings, times in
    seconds; its ``real_servers``, a mapping by address and port, tell ``forward``, ``weight``, the
    thresholds (in connections; 0 is none) and how many connections each carries:
    ``active_connections``, ``inactive_connections`` and ``persistent_connections`` (clients that
    persistence keeps with it).

    Raises CommandExecutionError where the kernel has no IPVS.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' ipvs.list
    """
    snapshot = ipvs.read()
    listed = plan.as_data(snapshot.table)
    for (virtual_server, real_server), connections in snapshot.connections.items():
        listed[str(virtual_server)]["real_servers"][str(real_server)].update(
            active_connections=connections.active,
            inactive_connections=connections.inactive,
            persistent_connections=connections.persistent,
        )
    return listed


@_salt_errors
def plan_(cluster=None, purge=None):
    """
    Return what :py:func:`ipvs.apply <saltext.lvs.modules.ipvs.apply_>` would do now, and change
    nothing.

    The answer has ``operations``, sentences in the order in which they would be carried out, and
    ``changes``, an ``old`` and a ``new`` for each virtual server and real server. Both are empty
    when the table is as it should be. ``loaded`` tells whether the kernel has IPVS loaded; where it
    has not, the table counts as empty.

    cluster
        The cluster, in the form of the pillar's ``lvs``; by default that pillar.

    purge
        Whether virtual servers that the cluster does not name would be deleted; by default the
        cluster's ``purge``.

    Raises SaltInvocationError for a wrong pillar, CommandExecutionError on a minion that is no
    director.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' ipvs.plan
    """
    wanted = _wanted(cluster)
    loaded = ipvs.loaded()
    current = ipvs.read().table if loaded else {}
    ops = plan.plan(current, wanted.table(), _purge(wanted, purge), wanted.keepalived_keys())
    return {
        "operations": [str(op) for op in ops],
        "changes": plan.changes(ops),
        "loaded": loaded,
    }


@_salt_errors
def apply_(cluster=None, purge=None):
    """
    Make the kernel's IPVS table hold what the cluster says, and read it back.

    Nothing is flushed: what is right stays untouched, real servers are added before others go, and
    open connections to real servers that remain live on. The answer has ``operations`` and
    ``changes`` as of ``ipvs.plan``, but of what really changed, and ``left``: operations that are
    missing still because another program writes to the table too.

    cluster, purge
        As for ``ipvs.plan``.

    Raises what ``ipvs.plan`` does, and CommandExecutionError where the kernel has no IPVS or
    refuses an operation; the others have been carried out then, and the next apply completes it.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' ipvs.apply
    """
    wanted = _wanted(cluster)
    outcome = ipvs.apply(wanted.table(), _purge(wanted, purge), wanted.keepalived_keys())
    return {
        "operations": [str(op) for op in outcome.ops],
        "changes": plan.changes(outcome.ops),
        "left": [str(op) for op in outcome.left],
    }


def _wanted(cluster):
    """The cluster that was given, or the pillar's; only a director has a table to keep."""
    wanted = model.from_pillar(__pillar__ if cluster is None else {"lvs": cluster})
    wanted.expect_role(__opts__["id"], model.Role.DIRECTOR)
    return wanted


def _purge(wanted, purge):
    return wanted.purge if purge is None else bool(purge)
