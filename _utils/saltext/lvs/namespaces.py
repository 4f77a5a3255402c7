"""Work in another network namespace: the kernel's IPVS table is one for each."""

from __future__ import annotations

import contextvars
import ctypes
import os
import threading
from collections.abc import Callable
from typing import TypeVar

from saltext.lvs.errors import InvalidConfig, NotAvailable

T = TypeVar("T")

# ip-netns(8): "a named network namespace is an object at /run/netns/NAME that can be opened".
FOLDER = "/run/netns"
CLONE_NEWNET = 0x40000000


def within(netns: str | None, work: Callable[[], T]) -> T:
    """Call *work* in a network namespace and return what it returns, or raise what it raises.

    It runs in a thread of its own, because setns(2) moves a thread for good, and to come back one
    needs rights in the first namespace that a container may not have.

    netns
        A name as of ``ip netns``, or an absolute path such as ``/proc/1234/ns/net``; None is the
        present one.

    Raises :class:`~saltext.lvs.errors.InvalidConfig` for what cannot be a namespace,
    :class:`~saltext.lvs.errors.NotAvailable` where there is none of that name.
    """
    if netns is None:
        return work()
    descriptor = _opened(netns)
    answers: list[T] = []
    errors: list[BaseException] = []

    # Salt hands a module its pillar, options and grains in context variables.
    context = contextvars.copy_context()

    def moved() -> None:
        try:
            _enter(descriptor, netns)
            answers.append(context.run(work))
        except BaseException as error:  # noqa: BLE001 -- raised again by the caller's thread
            errors.append(error)

    try:
        thread = threading.Thread(target=moved, name=f"lvs-netns-{netns}")
        thread.start()
        thread.join()
    finally:
        os.close(descriptor)
    if errors:
        raise errors[0]
    return answers[0]


def _opened(netns: str) -> int:
    if not isinstance(netns, str) or not netns or "\0" in netns:
        raise InvalidConfig("netns", netns, "the name of a network namespace, or a path of one")
    if netns.startswith("/"):
        path = netns
    elif "/" in netns or netns in (".", ".."):
        raise InvalidConfig("netns", netns, "a name as of `ip netns list`, or an absolute path")
    else:
        path = os.path.join(FOLDER, netns)
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NotAvailable(f"no network namespace {netns}: {error.strerror} ({path})") from error


def _enter(descriptor: int, netns: str) -> None:
    # os.setns is there from Python 3.12 on.
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise NotAvailable(f"cannot enter network namespace {netns}: {reason}")
