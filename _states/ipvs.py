"""
Keep a director's IPVS table as the pillar describes it.

.. code-block:: yaml

    lvs-ipvs-table:
      ipvs.managed
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "ipvs"


def __virtual__():
    if "ipvs.plan" in __salt__:
        return __virtualname__
    return False, "the ipvs execution module is not loaded"


def managed(name, cluster=None, purge=None, table=None, netns=None):
    """
    The kernel's IPVS table holds the cluster's virtual servers and their real servers.

    Virtual servers that keepalived keeps (``managed_by: keepalived``) are left alone, and so are
    those that the pillar does not name, unless it says ``purge: True``. Within a virtual server of
    the pillar the table is exact: other real servers are taken out.

    name
        Anything; it names the state in the report.

    cluster
        The cluster, in the form of the pillar's ``lvs``; by default that pillar.

    purge
        Whether to delete virtual servers that the cluster does not name; by default the cluster's
        ``purge``, and False for a *table*.

    table
        A table in the form of ``ipvs.save``, instead of a cluster.

    netns
        A network namespace, by its name or path; by default the minion's own.

    .. code-block:: yaml

        lvs-ipvs-table:
          ipvs.managed:
            - table:
                tcp 10.10.10.10:80:
                  scheduler: wlc
                  persistence: 5
                  real_servers:
                    10.10.10.41:80: {weight: 50}
                    10.10.10.42:80: {weight: 50}
    """
    return _converged(
        name,
        "The IPVS table",
        {"cluster": cluster, "purge": purge, "table": table, "netns": netns},
    )


def virtual_server(
    name,
    scheduler="wlc",
    persistence=0,
    netmask=None,
    one_packet=False,
    scheduler_flags=(),
    persistence_engine="",
    real_servers=None,
    netns=None,
):
    """
    One virtual server is in the kernel's IPVS table, exactly so, with exactly these real servers.

    name
        ``tcp 10.10.10.10:80``, ``udp [fd00::10]:53``, ``fwmark 7`` or ``fwmark 7 (IPv6)``.

    scheduler, persistence, netmask, one_packet, scheduler_flags, persistence_engine
        As for :py:func:`ipvs.add_virtual_server <saltext.lvs.modules.ipvs.add_virtual_server>`;
        times in seconds.

    real_servers
        A mapping by address and port of ``forward``, ``weight`` and the other settings of
        :py:func:`ipvs.add_real_server <saltext.lvs.modules.ipvs.add_real_server>`, each with its
        default.

    .. code-block:: yaml

        tcp 10.10.10.10:80:
          ipvs.virtual_server:
            - persistence: 5
            - real_servers:
                10.10.10.41:80: {weight: 50}
                10.10.10.42:80: {weight: 50}
    """
    settings = {
        "scheduler": scheduler,
        "persistence": persistence,
        "netmask": netmask,
        "one_packet": one_packet,
        "scheduler_flags": list(scheduler_flags),
        "persistence_engine": persistence_engine,
        "real_servers": real_servers,
    }
    return _converged(
        name, f"Virtual server {name}", {"table": {name: settings}, "purge": False, "netns": netns}
    )


def absent(name, netns=None):
    """
    A virtual server is not in the kernel's IPVS table, nor are its real servers.

    name
        As for ``ipvs.virtual_server``.

    .. code-block:: yaml

        tcp 10.10.10.10:8080:
          ipvs.absent
    """
    return _converged(
        name, f"Virtual server {name}", {"table": {}, "absent": [name], "netns": netns}, "absent"
    )


def _converged(name, subject, wanted, right="as it should be"):
    """Plan, tell in test mode, else apply: *wanted* are the arguments of ``ipvs.plan``."""
    ret = {"name": name, "result": True, "changes": {}, "comment": f"{subject} is {right}."}
    try:
        planned = __salt__["ipvs.plan"](**wanted)
        if not planned["operations"]:
            return ret
        if __opts__["test"]:
            ret.update(result=None, changes=planned["changes"])
            ret["comment"] = _told(f"{subject} would be changed:", planned["operations"])
            return ret
        done = __salt__["ipvs.apply"](**wanted)
    except (CommandExecutionError, SaltInvocationError) as error:
        ret.update(result=False, comment=str(error))
        return ret
    ret.update(
        changes=done["changes"], comment=_told(f"{subject} was changed:", done["operations"])
    )
    if done["left"]:
        ret["result"] = False
        ret["comment"] += "\n" + _told(
            "Another program changes the table at the same time; still missing:", done["left"]
        )
    return ret


def _told(head, operations):
    return "\n".join([head, *(f"- {operation}" for operation in operations)])
