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
    the pillar the table is exact: other real servers are taken out. A real server that the beacon
    ``real_server`` has found dead stays without clients, and so does one that an operator has
    drained; the comment says so, and the result is True.

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


def at_boot(name):
    """
    The next boot brings back the IPVS table that the pillar asks for, before keepalived starts and
    without Salt; on a minion that is no director any more, nothing does.

    See :py:func:`ipvs.at_boot <saltext.lvs.modules.ipvs.at_boot>`. It belongs after
    ``ipvs.managed``.

    name
        Anything; it names the state in the report.

    .. code-block:: yaml

        lvs-ipvs-at-boot:
          ipvs.at_boot:
            - require:
              - ipvs: lvs-ipvs-table
    """
    ret = {
        "name": name,
        "changes": {},
        "result": True,
        "comment": "The next boot brings back the table.",
    }
    act = "ipvs.plan_at_boot" if __opts__["test"] else "ipvs.at_boot"
    try:
        told = __salt__[act]()
    except (CommandExecutionError, SaltInvocationError) as error:
        return {**ret, "result": False, "comment": str(error)}
    if not told["operations"]:
        return ret
    verb, result = ("would be changed", None) if __opts__["test"] else ("were changed", True)
    comment = _told(f"The files for the next boot {verb}:", told["operations"])
    return {**ret, "result": result, "changes": told["changes"], "comment": comment}


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
        "scheduler_flags": [scheduler_flags]
        if isinstance(scheduler_flags, str)
        else list(scheduler_flags or ()),
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
    planned = {"changes": {}}
    try:
        planned = __salt__["ipvs.plan"](**wanted)
        notes = planned.get("notes", ())
        if not planned["operations"]:
            ret["comment"] = "\n".join([ret["comment"], *notes])
            return ret
        if __opts__["test"]:
            ret.update(result=None, changes=planned["changes"])
            ret["comment"] = _told(f"{subject} would be changed:", planned["operations"])
            ret["comment"] = "\n".join([ret["comment"], *notes])
            return ret
        done = __salt__["ipvs.apply"](**wanted)
    except (CommandExecutionError, SaltInvocationError) as error:
        ret.update(result=False, comment=str(error), changes=_so_far(planned["changes"], wanted))
        return ret
    ret.update(
        changes=done["changes"], comment=_told(f"{subject} was changed:", done["operations"])
    )
    ret["comment"] = "\n".join([ret["comment"], *done.get("notes", ())])
    if done["left"]:
        ret["result"] = False
        ret["comment"] += "\n" + _told(
            "Another program changes the table at the same time; still missing:", done["left"]
        )
    return ret


def _so_far(planned, wanted):
    """The planned changes that were made although another one failed."""
    if not planned or __opts__["test"]:
        return {}
    try:
        missing = __salt__["ipvs.plan"](**wanted)["changes"]
    except (CommandExecutionError, SaltInvocationError):
        return {}
    return {subject: change for subject, change in planned.items() if subject not in missing}


def _told(head, operations):
    return "\n".join([head, *(f"- {operation}" for operation in operations)])


# --------------------------------------------------------------------------------------------------
# Settings beside the table


def timeouts(name, tcp=None, tcpfin=None, udp=None, netns=None):
    """
    IPVS forgets silent connections after these many seconds. A timeout that is not named stays as
    it is.

    name
        Anything; it names the state in the report.

    tcp, tcpfin, udp
        For an established TCP connection, for one of which one end is closed, and for a UDP client.

    netns
        A network namespace, by its name or path; by default the minion's own.

    .. code-block:: yaml

        lvs-ipvs-timeouts:
          ipvs.timeouts:
            - tcp: 1800
            - udp: 60
    """
    arguments = {"tcp": tcp, "tcpfin": tcpfin, "udp": udp, "netns": netns}
    return _set(
        name,
        "The timeouts are as they should be.",
        lambda test: __salt__["ipvs.set_timeouts"](**arguments, test=test),
        "The timeouts would be changed.",
        "The timeouts were changed.",
    )


def sync_daemon(
    name,
    interface,
    syncid=0,
    multicast_group=None,
    port=None,
    ttl=None,
    maxlen=None,
    netns=None,
):
    """
    A daemon runs that synchronizes connections between directors, with exactly these settings.

    This is for directors without keepalived: where the pillar has a ``sync_daemon``, keepalived
    runs it, and this state fails.

    name
        ``master``, which tells of its connections, or ``backup``, which learns them.

    interface, syncid, multicast_group, port, ttl, maxlen
        As for :py:func:`ipvs.start_sync_daemon <saltext.lvs.modules.ipvs.start_sync_daemon>`.

    netns
        A network namespace, by its name or path; by default the minion's own.

    .. code-block:: yaml

        lvs-sync-daemon:
          ipvs.sync_daemon:
            - name: backup
            - interface: eth0
            - syncid: 10
    """
    arguments = {
        "interface": interface,
        "syncid": syncid,
        "multicast_group": multicast_group,
        "port": port,
        "ttl": ttl,
        "maxlen": maxlen,
        "netns": netns,
    }
    return _set(
        name,
        f"The {name} sync daemon runs as it should.",
        lambda test: __salt__["ipvs.start_sync_daemon"](name, **arguments, test=test),
    )


def sync_daemon_absent(name, netns=None):
    """
    A daemon that synchronizes connections between directors does not run.

    name
        ``master`` or ``backup``.

    netns
        A network namespace, by its name or path; by default the minion's own.

    .. code-block:: yaml

        master:
          ipvs.sync_daemon_absent
    """
    return _set(
        name,
        f"The {name} sync daemon does not run.",
        lambda test: __salt__["ipvs.stop_sync_daemon"](name, netns=netns, test=test),
    )


def _set(name, right, act, would="", was=""):
    """Ask what would change; where something would, and this is no test, do it.

    *would* and *was* are the comments, where the function that acts has none.
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": right}
    try:
        planned = act(True)
        if not planned["changes"]:
            return ret
        done = planned if __opts__["test"] else act(False)
    except (CommandExecutionError, SaltInvocationError) as error:
        ret.update(result=False, comment=str(error))
        return ret
    ret["changes"] = done["changes"]
    if __opts__["test"]:
        ret.update(result=None, comment=done.get("comment", would))
    else:
        ret["comment"] = done.get("comment", was)
    return ret


def sysctls(name, settings=None, config="/etc/sysctl.d/60-saltext-lvs-director.conf"):
    """
    IPVS's own kernel settings, ``net.ipv4.vs.*``, are right now and after a boot.

    A director needs few; ``ipvs.sysctls`` (the function) tells them all, with their reasons. A
    setting that this kernel does not have is named in the comment, and is no error.

    name
        Anything; it names the state in the report.

    settings
        What you want beside the few, or instead: a mapping of names to values, with or without
        ``net.ipv4.vs.``; None leaves one as it is.

    config
        The file that keeps them.

    .. code-block:: yaml

        lvs-director-sysctls:
          ipvs.sysctls:
            - settings:
                sloppy_tcp: 1
                sync_threshold: 3 100
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": ""}
    try:
        loaded = __salt__["ipvs.info"]()["loaded"]
        if not (loaded or __opts__["test"]):
            raise CommandExecutionError("this kernel has no IPVS loaded, so no settings of it")
        found = __salt__["ipvs.sysctls"](settings)
        wanted = {key: line for key, line in found.items() if line["wanted"] is not None}
        unknown = [key for key, line in wanted.items() if loaded and line["now"] is None]
        changes = _differing(wanted, unknown, __salt__["sysctl.show"](config_file=config))
        if not __opts__["test"]:
            for key, change in changes.items():
                # First, because persist keeps also what the kernel then refuses.
                __salt__["sysctl.assign"](key, wanted[key]["wanted"])
                __salt__["sysctl.persist"](key, wanted[key]["wanted"], config)
                ret["changes"][key] = change
    except (CommandExecutionError, SaltInvocationError) as error:
        ret.update(result=False, comment=str(error))
        return ret
    notes = [f"This kernel has no {key}." for key in unknown]
    if not changes:
        ret["comment"] = "\n".join(["IPVS's kernel settings are as they should be.", *notes])
        return ret
    verb = "would be" if __opts__["test"] else "were"
    ret["comment"] = "\n".join([f"IPVS's kernel settings {verb} changed.", *notes])
    if __opts__["test"]:
        ret.update(result=None, changes=changes)
    return ret


def _differing(wanted, unknown, kept):
    """What a setting is now and what the file keeps of it, where one of the two is not right.

    Salt answers a list for a file that is not there, and None for one that it cannot read.
    """
    changes = {}
    for key, line in wanted.items():
        in_file = (kept or {}).get(key)
        old = {"now": line["now"], "kept": in_file and " ".join(in_file.split())}
        new = {"now": line["wanted"], "kept": line["wanted"]}
        if key not in unknown and old != new:
            changes[key] = {"old": old, "new": new}
    return changes
