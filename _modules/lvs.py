"""
This minion's part in a Linux Virtual Server cluster, as its pillar describes it.

The cluster is the pillar's ``lvs``, the passwords are ``lvs_secrets``; see ``docs/pillar.md``.
"""

import importlib
import importlib.metadata
import os
import re
import subprocess
import sys

import saltext.lvs
from salt.exceptions import CommandExecutionError, SaltInvocationError

saltext.lvs.refresh(__file__)

from saltext.lvs import errors, model, sysctls  # noqa: E402 -- the library as it is now on disk

__virtualname__ = "lvs"

# The oldest release that was tried; setup.cfg asks for the same.
PYROUTE2 = (0, 9, 6)

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


def view():
    """
    Return what the SLS files need to know of this minion's part, as plain values without passwords.

    ``problems`` as of ``lvs.validate``; if there are any, nothing else is given. Otherwise:
    ``roles``, ``cluster`` (its name), ``has_pyroute2`` (whether Salt's own Python has one that is
    new enough), ``modules`` and ``modules_missing`` (of the kernel, by role), ``vip_interface``,
    ``vips`` (those that this minion must hold as a real server), ``sysctls`` (by role), ``beacons``
    (with their configuration) and ``lookup`` (the pillar's own names of packages and paths).

    CLI Example:

    .. code-block:: bash

        salt lb1 lvs.view
    """
    try:
        cluster = _cluster()
    except errors.InvalidConfig as error:
        return {"problems": [str(problem) for problem in error.problems]}
    minion_id = __opts__["id"]
    schedulers = {vs.scheduler.value for vs in cluster.virtual_servers.values()}
    modules = {
        model.Role.DIRECTOR.value: ["ip_vs", *sorted(f"ip_vs_{name}" for name in schedulers)],
        model.Role.REAL_SERVER.value: ["dummy"],
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
        "vip_interface": cluster.vip_interface,
        "vips": [str(vip) for vip in cluster.vips_of(minion_id)],
        "sysctls": {
            role.value: [{"name": line.name, "value": line.value} for line in lines]
            for role, lines in sysctls.for_minion(cluster, minion_id).items()
        },
        "beacons": {"dummy": [{"interval": 1}]} if cluster.vips_of(minion_id) else {},
        "lookup": dict(cluster.lookup),
    }


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
