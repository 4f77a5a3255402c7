"""What can go wrong, in two kinds: the pillar is wrong, or the machine answered no.

The library raises these and nothing of Salt's. An execution module wraps its calls in
:func:`raised_as` to hand them on as Salt's own exceptions.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

MASK = "**********"


class LvsError(Exception):
    """Anything that this library reports; its text is written for the operator."""


# The pillar's other key: a password in a misspelt place is a password still.
SECRETS = "lvs_secrets"


class InvalidConfig(LvsError):
    """A value that cannot be right, found before anything was changed.

    path
        Where it stands, as Salt writes pillar paths: ``lvs:virtual_servers:web:port``.

    value
        What stands there. Pass :data:`MASK` for a secret; nothing below ``lvs_secrets`` is shown,
        whatever it is.

    expected
        What would be right, as the end of the sentence "... is X; it should be ...".
    """

    def __init__(self, path: str, value: Any, expected: str) -> None:
        self.path = path
        if value is not None and (path == SECRETS or path.startswith(f"{SECRETS}:")):
            value = MASK
        self.value = value
        self.expected = expected
        self.problems: tuple[InvalidConfig, ...] = (self,)
        shown = MASK if value == MASK else "missing" if value is None else repr(value)
        super().__init__(f"{path} is {shown}; it should be {expected}")

    @classmethod
    def of(cls, problems: Sequence[InvalidConfig]) -> InvalidConfig:
        """Several problems as one error: an operator wants to mend all of them at once."""
        if len(problems) == 1:
            return problems[0]
        first = problems[0]
        several = cls(first.path, first.value, first.expected)
        several.problems = tuple(problems)
        several.args = ("\n".join(str(problem) for problem in problems),)
        return several


class KernelError(LvsError):
    """The kernel refused an operation.

    operation
        What was asked of it, in words: ``add real server 10.10.10.41:80 to tcp 10.10.10.10:80``.

    number
        Its error number, as in ``errno.h``.

    hint
        What the operator may do about it, where that is known.
    """

    def __init__(self, operation: str, number: int, hint: str = "") -> None:
        self.operation = operation
        self.number = number
        name = errno.errorcode.get(number, str(number))
        text = f"cannot {operation}: {os.strerror(number)} ({name})"
        super().__init__(f"{text}; {hint}" if hint else text)


class NotAvailable(LvsError):
    """Something that this machine lacks: a kernel module, a program, a Python package."""


class WrongRole(LvsError):
    """A machine was asked for something that is not its part in the cluster."""


class WrongState(LvsError):
    """What a change needs to be there is not there, or is there already."""


class DamagedState(LvsError):
    """A file of our own does not say any more what it is there for.

    holds
        What it is there for.

    trouble
        What is wrong with it.
    """

    def __init__(self, path: str, holds: str, trouble: str) -> None:
        super().__init__(
            f"{path} is damaged ({trouble}); it holds {holds}: mend it, or take it away to go on "
            "without them"
        )


class InUse(LvsError):
    """Something that would be taken away is still used."""


class KeptElsewhere(LvsError):
    """Something that keepalived keeps by the pillar, and that only the pillar may change.

    subject
        What it is: a virtual server, the sync daemon.

    hint
        What may be done without the pillar, where something may.
    """

    def __init__(self, subject: str, hint: str = "") -> None:
        text = f"keepalived keeps {subject}, as the pillar says: change it there"
        super().__init__(f"{text}; {hint}" if hint else text)

    @classmethod
    def virtual_server(cls, names: str) -> KeptElsewhere:
        """For virtual servers: their weights have another door."""
        return cls(names, "keepalived.set_weight sets the weight of a real server")


class CommandFailed(LvsError):
    """A program that we ran said no; the text carries its own words."""


@contextmanager
def raised_as(invalid: type[Exception], failed: type[Exception]) -> Iterator[None]:
    """Hand our errors on as another program's: the one place where they are translated.

    invalid
        What an :class:`InvalidConfig` becomes; Salt's is ``SaltInvocationError``.

    failed
        What every other :class:`LvsError` becomes; Salt's is ``CommandExecutionError``.
    """
    try:
        yield
    except InvalidConfig as error:
        raise invalid(str(error)) from error
    except LvsError as error:
        raise failed(str(error)) from error
