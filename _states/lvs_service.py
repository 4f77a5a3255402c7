"""
Virtual servers one by one, with the names and arguments that Salt itself had until 3007.

An SLS that was written for those applies unchanged. ``docs/migrating.md`` tells what is better now,
and how the pillar takes its place: :py:func:`ipvs.managed <saltext.lvs.states.ipvs.managed>` keeps
a whole table.

.. code-block:: yaml

    web:
      lvs_service.present:
        - protocol: tcp
        - service_address: 10.10.10.10:80
        - scheduler: wlc
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "lvs_service"


def __virtual__():
    if "lvs.check_service" in __salt__:
        return __virtualname__
    return False, "the lvs execution module is not loaded"


def present(name, protocol=None, service_address=None, scheduler="wlc"):
    """
    The virtual server is in the kernel's table, with this scheduler.

    Its persistence, its other settings and its real servers stay as they are; one that is new has
    none.

    name
        Anything; it names the virtual server in the report.

    protocol
        ``tcp``, ``udp``, ``sctp`` or ``fwmark``.

    service_address
        Address and port, such as ``10.10.10.10:80`` or ``[fd00::10]:80``; with ``fwmark`` the
        firewall mark, ``7 -6`` for IPv6.

    scheduler
        How real servers are chosen, see ipvsadm(8).
    """
    try:
        if not __salt__["lvs.check_service"](protocol, service_address):
            made, word = "created", "Present"
        elif not __salt__["lvs.check_service"](protocol, service_address, scheduler=scheduler):
            made, word = "updated", "Update"
        else:
            return _answer(name, f"LVS Service {name} is present")
        if __opts__["test"]:
            __salt__["lvs.check_changeable"](protocol, service_address)
            return _answer(name, f"LVS Service {name} would be {made}", word, result=None)
        function = "lvs.add_service" if word == "Present" else "lvs.edit_service"
        __salt__[function](protocol, service_address, scheduler)
    except (CommandExecutionError, SaltInvocationError) as error:
        return _answer(name, f"LVS Service {name} is not as it should be: {error}", result=False)
    return _answer(name, f"LVS Service {name} has been {made}", word)


def absent(name, protocol=None, service_address=None):
    """
    The virtual server is not in the kernel's table, and neither are its real servers.

    name, protocol, service_address
        As for ``present``.
    """
    try:
        if not __salt__["lvs.check_service"](protocol, service_address):
            return _answer(name, f"LVS Service {name} is not present")
        if __opts__["test"]:
            __salt__["lvs.check_changeable"](protocol, service_address)
            return _answer(name, f"LVS Service {name} would be removed", "Absent", result=None)
        __salt__["lvs.delete_service"](protocol, service_address)
    except (CommandExecutionError, SaltInvocationError) as error:
        return _answer(name, f"LVS Service {name} cannot be removed: {error}", result=False)
    return _answer(name, f"LVS Service {name} has been removed", "Absent")


def _answer(name, comment, change=None, result=True):
    changes = {name: change} if change else {}
    return {"name": name, "changes": changes, "result": result, "comment": comment}
