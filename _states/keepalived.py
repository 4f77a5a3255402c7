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
        - sig: keepalived
        - require:
          - keepalived: lvs-keepalived-config

The state of the configuration reloads a running keepalived by itself: a ``watch`` of the service
would do it once more, or restart it, which takes the VIPs down.
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "keepalived"


def __virtual__():
    if "keepalived.plan_config" in __salt__:
        return __virtualname__
    return False, "the keepalived execution module is not loaded"


def config(
    name="/etc/keepalived/keepalived.conf",
    template=None,
    saltenv=None,
    restart=False,
    service="keepalived",
):
    """The configuration file is as the pillar says, accepted by keepalived and readable by root
    alone, and the running keepalived has loaded it.

    The pipes and files of weights that keepalived must find are made too. keepalived checks the new
    file before it takes the old one's place, which stays as ``keepalived.conf.previous``. If
    keepalived refuses it, the state fails with keepalived's own words, and neither the old file nor
    what runs is touched. Passwords show as stars in the changes; one that changes shows as two
    lines that look alike.

    Where keepalived runs it reloads, and the state fails if that has made a VRRP instance leave its
    state, or cost a VIP or a virtual server. Where it does not run, it is not started.

    A keepalived that runs with another file than this is left alone, and the state fails: the file
    is written, and a reload would load nothing of it.

    What a reload cannot change makes it fail too: the file is written, so that the next start finds
    it, and nothing of it is loaded.

    name
        The configuration file.

    template
        Another template than the pillar's (``lvs:keepalived:template``).

    saltenv
        The Salt environment to take it from; by default that of the SLS.

    restart
        Restart keepalived where a reload will not do, and wait until VRRP has settled. That takes
        the VIPs down: have a backup director do it first.

    service
        keepalived's name as a service, for that.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": f"{name} is as it should be."}
    source = {"template": template, "saltenv": saltenv or globals().get("__env__")}
    test = __opts__["test"]
    try:
        plan = __salt__["keepalived.plan_config"](name, restart=restart, **source)
        # A restart that is pending is told until it has been.
        if not any(plan[kind] for kind in ("changes", "problems", "restart", "failures")):
            return ret
        if not test:
            source["service"] = service
            plan = __salt__["keepalived.apply_config"](name, restart=restart, **source)
    except (CommandExecutionError, SaltInvocationError) as error:
        return {**ret, "result": False, "comment": str(error)}
    result, comment = _verdict(name, plan, test, restart)
    return {**ret, "changes": plan["changes"], "result": result, "comment": "\n".join(comment)}


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


def _verdict(name, plan, test, restart):
    """The state's result and the lines of its comment, of what it found or did."""
    if plan["problems"]:
        head = f"keepalived refuses the new {name}; the old one stays:"
        return False, [head, *plan["problems"]]
    if plan["failures"] and "loaded" not in plan["changes"]:
        return False, [f"keepalived does not go by {name}:", *plan["failures"]]
    if plan["failures"]:
        head = "keepalived has the new configuration, but it went wrong:"
        advice = f"Look at keepalived's log; the configuration before is {name}.previous."
        return False, [head, *plan["failures"], *plan["notes"], advice]
    if plan["restart"] and not restart:
        return False, [*_half(name, test), *plan["restart"], _ADVICE]
    if not test:
        return True, [f"{name} has been updated.", *plan["notes"]]
    comment = f"{name} would be updated."
    if not plan["checked"]:
        comment += " keepalived is not installed yet, so it could not check it."
    return None, [comment, *plan["restart"]]


_ADVICE = (
    "Apply it with restart: True, on the backup director first: a restart takes the VIPs down."
)


def _half(name, test):
    verb = "would be written" if test else "is written"
    return [f"{name} {verb}, but a reload would not put it in effect:"]
