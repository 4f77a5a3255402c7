"""
Real servers one by one, with the names and arguments that Salt itself had until 3007.

An SLS that was written for those applies unchanged. ``docs/migrating.md`` tells what is better now,
and how the pillar takes its place: :py:func:`ipvs.managed <saltext.lvs.states.ipvs.managed>` keeps
a whole table.

.. code-block:: yaml

    web-rs1:
      lvs_server.present:
        - protocol: tcp
        - service_address: 10.10.10.10:80
        - server_address: 10.10.10.41:80
        - packet_forward_method: dr
        - weight: 50
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "lvs_server"


def __virtual__():
    if "lvs.check_server" in __salt__:
        return __virtualname__
    return False, "the lvs execution module is not loaded"


def present(
    name,
    protocol=None,
    service_address=None,
    server_address=None,
    packet_forward_method="dr",
    weight=1,
):
    """
    The real server is in the virtual server, with this way of forwarding and this weight.

    Its thresholds stay as they are. Open connections go on, also when the weight becomes 0.

    name
        Anything; it names the real server in the report.

    protocol, service_address
        The virtual server, as for ``lvs_service.present``.

    server_address
        Address and port of the real server. Without a port it is the virtual server's, and with
        ``dr`` and ``tunnel`` it always is, whatever is written here: they rewrite no ports.

    packet_forward_method
        ``dr`` (direct routing), ``tunnel`` or ``nat``.

    weight
        Its share of new connections, 0 to 2147483647; 0 takes no new ones.
    """
    where = (protocol, service_address, server_address)
    wanted = {"packet_forward_method": packet_forward_method, "weight": weight}
    told = f"LVS Server {name} in service {service_address}({protocol})"
    try:
        if not __salt__["lvs.check_server"](*where):
            made, word = "created", "Present"
        elif not __salt__["lvs.check_server"](*where, **wanted):
            made, word = "updated", "Update"
        else:
            return _answer(name, f"{told} is present")
        if __opts__["test"]:
            __salt__["lvs.check_changeable"](protocol, service_address)
            return _answer(name, f"{told} would be {made}", word, result=None)
        function = "lvs.add_server" if word == "Present" else "lvs.edit_server"
        __salt__[function](*where, **wanted)
    except (CommandExecutionError, SaltInvocationError) as error:
        return _answer(name, f"{told} is not as it should be: {error}", result=False)
    return _answer(name, f"{told} has been {made}", word)


def absent(name, protocol=None, service_address=None, server_address=None):
    """
    The real server is not in the virtual server; connections that it had end.

    name, protocol, service_address, server_address
        As for ``present``.
    """
    where = (protocol, service_address, server_address)
    told = f"LVS Server {name} in service {service_address}({protocol})"
    try:
        if not __salt__["lvs.check_server"](*where):
            return _answer(name, f"{told} is not present")
        if __opts__["test"]:
            __salt__["lvs.check_changeable"](protocol, service_address)
            return _answer(name, f"{told} would be removed", "Absent", result=None)
        __salt__["lvs.delete_server"](*where)
    except (CommandExecutionError, SaltInvocationError) as error:
        return _answer(name, f"{told} cannot be removed: {error}", result=False)
    return _answer(name, f"{told} has been removed", "Absent")


def _answer(name, comment, change=None, result=True):
    changes = {name: change} if change else {}
    return {"name": name, "changes": changes, "result": result, "comment": comment}
