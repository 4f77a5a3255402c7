"""
Keep a director's ``keepalived.conf`` as the pillar describes it, and its VIPs where keepalived put
them.

.. code-block:: yaml

    lvs-director-vips-kept:
      keepalived.vips_kept

    lvs-keepalived-config:
      keepalived.config

    lvs-keepalived-service:
      service.running:
        - name: keepalived
        - enable: True
        - reload: True
        - sig: keepalived
        - watch:
          - keepalived: lvs-keepalived-config

``reload`` is essential: a restart takes the VIPs down.
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "keepalived"


def __virtual__():
    if "keepalived.plan_config" in __salt__:
        return __virtualname__
    return False, "the keepalived execution module is not loaded"


def config(name="/etc/keepalived/keepalived.conf", template=None, saltenv=None):
    """The configuration file is as the pillar says, accepted by keepalived, and readable by root
    alone.

    keepalived checks the new file before it takes the old one's place. If it refuses, the state
    fails with keepalived's own words, and the old file stays. Passwords show as stars in the
    changes; one that changes shows as two lines that look alike.

    name
        The configuration file.

    template
        Another template than the pillar's (``lvs:keepalived:template``).

    saltenv
        The Salt environment to take it from; by default that of the SLS.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": f"{name} is as it should be."}
    source = {"template": template, "saltenv": saltenv or globals().get("__env__")}
    try:
        plan = __salt__["keepalived.plan_config"](name, **source)
        if not plan["changes"] and not plan["problems"]:
            return ret
        if not __opts__["test"]:
            plan = __salt__["keepalived.write_config"](name, **source)
    except (CommandExecutionError, SaltInvocationError) as error:
        return {**ret, "result": False, "comment": str(error)}
    return {**ret, "changes": plan["changes"], **_verdict(name, plan, __opts__["test"])}


def vips_kept(name):
    """systemd-networkd leaves VIPs alone on the interfaces where keepalived puts them.

    Where it does not manage them, there is nothing to do; on a minion that is no director any more,
    what was written for it goes. Where systemd-networkd has not decided yet about an interface, or
    it is away, nothing is written for it, and the comment says so. See ``keepalived.keep_vips``.

    name
        Any.
    """
    ret = {
        "name": name,
        "changes": {},
        "result": True,
        "comment": "systemd-networkd takes no VIP away.",
    }
    act = "keepalived.plan_keep_vips" if __opts__["test"] else "keepalived.keep_vips"
    try:
        told = __salt__[act]()
    except (CommandExecutionError, SaltInvocationError) as error:
        return {**ret, "result": False, "comment": str(error)}
    beware = [f"Beware: {_undecided(name)}" for name in told["unknown"]]
    if not told["operations"]:
        return {**ret, "comment": "\n".join(beware) or ret["comment"]}
    verb, result = ("would be changed", None) if __opts__["test"] else ("were changed", True)
    head = f"The files for systemd-networkd {verb}:"
    comment = "\n".join([head, *(f"- {operation}" for operation in told["operations"]), *beware])
    return {**ret, "result": result, "changes": told["changes"], "comment": comment}


def _undecided(interface):
    return (
        f"systemd-networkd has not decided about {interface} yet, or {interface} is away; it may "
        "take VIPs away there. Apply this again."
    )


def _verdict(name, plan, test):
    """The state's result and comment, of what it found or did."""
    if plan["problems"]:
        head = f"keepalived refuses the new {name}; the old one stays:"
        return {"result": False, "comment": "\n".join([head, *plan["problems"]])}
    if not test:
        return {"result": True, "comment": f"{name} has been updated."}
    comment = f"{name} would be updated."
    if not plan["checked"]:
        comment += " keepalived is not installed yet, so it could not check it."
    return {"result": None, "comment": comment}
