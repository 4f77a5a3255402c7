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


def managed(name, cluster=None, purge=None):
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
        ``purge``.
    """
    ret = {
        "name": name,
        "result": True,
        "changes": {},
        "comment": "The IPVS table is as it should be.",
    }
    try:
        planned = __salt__["ipvs.plan"](cluster=cluster, purge=purge)
        if not planned["operations"]:
            return ret
        if __opts__["test"]:
            ret.update(result=None, changes=planned["changes"])
            ret["comment"] = _told("The IPVS table would be changed:", planned["operations"])
            return ret
        done = __salt__["ipvs.apply"](cluster=cluster, purge=purge)
    except (CommandExecutionError, SaltInvocationError) as error:
        ret.update(result=False, comment=str(error))
        return ret
    ret.update(
        changes=done["changes"], comment=_told("The IPVS table was changed:", done["operations"])
    )
    if done["left"]:
        ret["result"] = False
        ret["comment"] += "\n" + _told(
            "Another program changes the table at the same time; still missing:", done["left"]
        )
    return ret


def _told(head, operations):
    return "\n".join([head, *(f"- {operation}" for operation in operations)])
