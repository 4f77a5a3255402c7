"""keepalived on a director: its configuration from the pillar, checked before it is used, and
whether it runs.

The configuration holds the VRRP passwords. No function here returns, logs or raises one: they go
from the pillar into the file, which only root may read.

The template is ``salt://lvs/files/keepalived.conf.jinja``. To change it for one site, serve another
file at that place before ours in ``file_roots``, or name one in the pillar
(``lvs:keepalived:template``). Besides the names that its head explains, ``grains``, ``salt`` and
``opts`` are there.

:depends: root; keepalived, for all but rendering
"""

import time

import saltext.lvs
from salt.exceptions import CommandExecutionError, SaltInvocationError

saltext.lvs.refresh(__file__)

# The library as it is now on disk.
from saltext.lvs import errors, garp, keepalived, model, networkd, rtnetlink  # noqa: E402

__virtualname__ = "keepalived"

_salt_errors = errors.raised_as(SaltInvocationError, CommandExecutionError)


def __virtual__():
    if __grains__["kernel"] != "Linux":
        return False, "LVS is a part of Linux"
    return __virtualname__


@_salt_errors
def render(template=None, saltenv=None):
    """Return the ``keepalived.conf`` that the pillar asks for on this director, with stars for
    passwords.

    template
        Another template than the pillar's: a ``salt://`` address or an absolute path.

    saltenv
        The Salt environment to take it from; by default the minion's.

    Raises SaltInvocationError for a wrong pillar, CommandExecutionError on a minion that is no
    director, and for a template that is missing or fails.

    CLI Example:

    .. code-block:: bash

        salt lb1 keepalived.render
    """
    cluster = _cluster()
    return keepalived.mask(_rendered(cluster, template, saltenv), cluster)


@_salt_errors
def plan_config(path=keepalived.CONFIG, template=None, saltenv=None):
    """
    Return what ``keepalived.write_config`` would do now, and leave the file as it is.

    The answer has ``changes``: a ``diff`` with stars for passwords, and ``mode``, ``user`` and
    ``group`` where others than root can read the file; ``problems``, what keepalived has against
    the new text, in its own words; and ``checked``, False where keepalived is not installed yet, so
    that nobody can tell.

    path
        The configuration file.

    template, saltenv
        As for ``keepalived.render``.

    Raises what ``keepalived.render`` does, and CommandExecutionError for a file that cannot be
    read.

    CLI Example:

    .. code-block:: bash

        salt lb1 keepalived.plan_config
    """
    cluster = _cluster()
    text = _rendered(cluster, template, saltenv)
    return _as_data(keepalived.plan(path, text, keepalived.passwords(cluster)))


@_salt_errors
def write_config(path=keepalived.CONFIG, template=None, saltenv=None):
    """Write the ``keepalived.conf`` that the pillar asks for, if keepalived accepts it. It is not
    loaded by that.

    keepalived checks the new file beside the old one, which it then replaces in one step. If it
    refuses, the old one stays. Only root can read either at any moment.

    The answer is that of ``keepalived.plan_config``, but ``changes`` are those made.

    path, template, saltenv
        As for ``keepalived.plan_config``.

    Raises what ``keepalived.plan_config`` does, and CommandExecutionError where keepalived is not
    installed.

    CLI Example:

    .. code-block:: bash

        salt lb1 keepalived.write_config
    """
    cluster = _cluster()
    text = _rendered(cluster, template, saltenv)
    return _as_data(keepalived.apply(path, text, keepalived.passwords(cluster)))


@_salt_errors
def check_config(path=keepalived.CONFIG):
    """Return what keepalived has against a configuration file, as a list of its own words; an
    empty list if nothing.

    Warnings count: keepalived starts with them, but what they are about is not what the file says.
    Also told are files that ``keepalived -t`` passes without reading them: a missing one, an empty
    one, an executable one.

    path
        The configuration file.

    Raises CommandExecutionError where keepalived is not installed.

    CLI Example:

    .. code-block:: bash

        salt lb1 keepalived.check_config
    """
    return list(keepalived.check(path))


@_salt_errors
def reload(path=keepalived.CONFIG):
    """Make the running keepalived read its configuration again, and return True. VIPs and
    connections stay.

    The file is checked first, because keepalived ends, or takes real servers out, when it is told
    to load a wrong one.

    path
        The configuration file that it runs with.

    Raises CommandExecutionError if keepalived refuses the file, does not run or is not installed.

    CLI Example:

    .. code-block:: bash

        salt lb1 keepalived.reload
    """
    keepalived.reload(path)
    return True


@_salt_errors
def version():
    """
    Return the version of the keepalived that is installed, such as ``2.2.7``.

    Raises CommandExecutionError where none is.

    CLI Example:

    .. code-block:: bash

        salt lb1 keepalived.version
    """
    return keepalived.version()


@_salt_errors
def status():
    """
    Return how keepalived is on this director.

    ``running``, ``pid`` and ``version`` (of the installed program; None if there is none); and
    ``vrrp_instances``, for each its ``vips`` and ``vips_held``, those that are on an interface of
    this machine now.

    Raises SaltInvocationError for a wrong pillar, CommandExecutionError on a minion that is no
    director.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' keepalived.status
    """
    addresses = [held.address.ip for link in rtnetlink.read_all() for held in link.addresses]
    return keepalived.status(_cluster(), addresses)


@_salt_errors
def plan_keep_vips():
    """
    Return what ``keepalived.keep_vips`` would do now, and change nothing: ``operations``,
    sentences; ``changes``, a ``diff`` for each file; and ``unknown``, the interfaces of which
    systemd-networkd has not said yet by which file it keeps them, as while they are away.

    Raises SaltInvocationError for a wrong pillar, CommandExecutionError for a file that cannot be
    read.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' keepalived.plan_keep_vips
    """
    names = _vip_interfaces()
    return _told(networkd.unknown(names), networkd.plan(names))


@_salt_errors
def keep_vips():
    """
    Have systemd-networkd leave VIPs alone on the interfaces where keepalived puts them, as far as
    it manages these: otherwise it takes them away when it is restarted.

    Beside the file that an interface goes by, a file of our own in ``/etc/systemd/network`` says
    ``KeepConfiguration=``, unless what is there already keeps VIPs. A restart of systemd-networkd
    reads it; nothing that runs is told, because ``networkctl reload`` takes the interface's own
    address away for a moment. Files of ours that are no longer needed go: also on a minion that is
    no director any more. The answer is as of ``keepalived.plan_keep_vips``, but of what was done.

    Raises what that does, and CommandExecutionError for a file that cannot be written.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' keepalived.keep_vips
    """
    names = _vip_interfaces()
    # Before the plan: who is decided about in between has its file all the same.
    unknown, planned = networkd.unknown(names), networkd.plan(names)
    networkd.write(planned)
    return _told(unknown, planned)


def _vip_interfaces():
    return networkd.interfaces(model.from_pillar(__pillar__), __opts__["id"])


def _told(unknown, planned):
    return {
        "operations": [str(change) for change in planned],
        "changes": {change.path: change.as_data() for change in planned},
        "unknown": list(unknown),
    }


# What a caller may have a job wait for.
LONGEST_DELAY_SECONDS = 60


@_salt_errors
def send_garp(address=None, delay=0):
    """
    Tell all neighbours that the pillar's VIPs are at this director, as far as they are.

    Neighbours that have learnt a wrong MAC address for a VIP get the right one: by gratuitous ARP,
    for IPv6 by unsolicited neighbour advertisements, in three rounds a second apart, on the
    interface that holds the VIP. A VIP that this director does not hold is never announced, so a
    backup may be asked as well.

    The answer has ``announced``, how many frames were sent by VIP and interface; ``silent``, why
    nothing was sent, by VIP; and ``queued``. Rounds begin five seconds apart at least: who asks
    sooner waits, and where somebody waits already, that one's announcement is still to come and
    will do for both, so that ``queued`` is True and nothing is sent.

    address
        One VIP; by default all of the pillar's. The announcement of a single one is never left to
        somebody else who waits.

    delay
        Seconds to wait first, 60 at most.

    Raises SaltInvocationError for a wrong pillar, and for an address that is no VIP of it;
    CommandExecutionError on a minion that is no director, and without the right to send.

    CLI Example:

    .. code-block:: bash

        salt 'lb*' keepalived.send_garp
        salt lb1 keepalived.send_garp 10.10.10.10
    """
    vips = garp.vips(_cluster(), address)
    time.sleep(_seconds(delay))
    told = garp.in_turn(vips, stand_in=address is None)
    done = told or garp.Announced({}, {})
    return {
        "announced": {str(vip): dict(frames) for vip, frames in done.frames.items()},
        "silent": {str(vip): why for vip, why in done.silent.items()},
        "queued": told is None,
    }


def _seconds(delay):
    if type(delay) in (int, float) and 0 <= delay <= LONGEST_DELAY_SECONDS:
        return delay
    raise errors.InvalidConfig("delay", delay, f"seconds, from 0 to {LONGEST_DELAY_SECONDS}")


def _cluster():
    cluster = model.from_pillar(__pillar__)
    cluster.expect_role(__opts__["id"], model.Role.DIRECTOR)
    return cluster


def _rendered(cluster, template, saltenv):
    """The configuration with the passwords in it: for this module alone, never to be returned."""
    source = template or cluster.keepalived_template
    context = {"grains": __grains__, "salt": __salt__, "opts": __opts__}
    return keepalived.render(cluster, __opts__["id"], _fetched(source, saltenv), context, source)


def _fetched(source, saltenv):
    """The text of a template, from the master where it is a ``salt://`` address."""
    saltenv = saltenv or __opts__.get("saltenv") or "base"
    path = source if source.startswith("/") else __salt__["cp.cache_file"](source, saltenv=saltenv)
    if not path:
        raise errors.NotAvailable(f"{source} is not in the file roots of environment {saltenv}")
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise errors.CommandFailed(f"cannot read {source}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise errors.CommandFailed(f"cannot read {source}: it is not UTF-8") from error


def _as_data(change):
    return {
        "changes": dict(change.changes),
        "problems": list(change.problems),
        "checked": change.checked,
    }
