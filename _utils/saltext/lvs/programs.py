"""Programs as checks: no shell, bounded in time and output, killed with what they started."""

from __future__ import annotations

import contextlib
import errno
import os
import signal

from saltext.lvs.checks import Done, Exec, Outcome
from saltext.lvs.loop import READABLE, Loop, Timer
from saltext.lvs.replies import readable

AT_ONCE = 1 << 16
LOOK_EVERY_SECONDS = 0.02
# This machine lacks something now, whatever the program is.
NO_ROOM = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
# What a parent may have changed for itself, and a program does not expect.
DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGTERM)


class Runner:
    """Runs one program, again and again."""

    def __init__(self, how: Exec) -> None:
        self.how = how

    def start(self, loop: Loop, timeout: float, done: Done) -> Process:
        """Start the program.

        Raises OSError where this machine has no descriptor or no process left; a program that is
        not there is an outcome.
        """
        return Process(self.how, loop, timeout, done)


class Process:
    """One run: in a session of its own, so that what it starts can be ended with it."""

    def __init__(self, how: Exec, loop: Loop, timeout: float, done: Done) -> None:
        self._how, self._loop, self._timeout, self._done = how, loop, timeout, done
        self._output = b""
        self._pid = self._handle = -1
        self._poll: Timer | None = None
        self._pipe, writer = os.pipe2(os.O_CLOEXEC)
        # This end alone: a program expects to be able to write.
        os.set_blocking(self._pipe, False)
        try:
            self._pid = self._spawned(writer)
        except FileNotFoundError:
            self._close()
            done(None, f"{how} could not be run: there is no such program")
            return
        except PermissionError:
            self._close()
            done(None, f"{how} could not be run: it is not executable")
            return
        except OSError as error:
            self._close()
            if error.errno in NO_ROOM:
                raise
            done(None, f"{how} could not be run: {error.strerror}")
            return
        finally:
            os.close(writer)
        loop.watch(self._pipe, READABLE, self._said)
        self._await_end()

    def expired(self) -> Outcome:
        """Its time is up."""
        self.stop()
        return False, f"{self._how} did not end within {self._timeout:g} s, and was killed"

    def stop(self) -> None:
        """Kill it and all that it has started."""
        self._close()
        if self._pid > 0:
            self._kill()
            self._reap()

    def _spawned(self, output: int) -> int:
        command = self._how.command
        return os.posix_spawn(
            command[0],
            command,
            dict(self._how.environment),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=DEFAULT_SIGNALS,
        )

    def _await_end(self) -> None:
        try:
            self._handle = os.pidfd_open(self._pid)
        except OSError:  # Linux before 5.3, or no descriptor is left
            self._look()
        else:
            self._loop.watch(self._handle, READABLE, self._ended)

    def _look(self) -> None:
        if os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            self._ended(0)
        else:
            self._poll = self._loop.later(LOOK_EVERY_SECONDS, self._look)

    def _reap(self) -> None:
        """A killed process that hangs in the kernel (a dead disk) may take its time to end."""
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(self._pid, os.WNOHANG)[0] == 0:
                self._loop.later(LOOK_EVERY_SECONDS, self._reap)

    def _said(self, _events: int) -> None:
        """Take in its output; what is too much is thrown away, so that the program can go on."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._pipe, AT_ONCE)
            self._output = (self._output + data)[: self._how.most]
            if not data:
                self._loop.forget(self._pipe)

    def _ended(self, _events: int) -> None:
        self._said(0)
        # While it is not waited for, its number cannot be another group's.
        self._kill()
        outcome = self._judged(self._status())
        self._close()
        self._done(*outcome)

    def _judged(self, status: int | None) -> Outcome:
        lines = self._output.strip().splitlines()
        said = f": {readable(lines[0], 120)}" if lines else ""
        if status is None:
            return None, f"{self._how} ended, but somebody else took its exit status{said}"
        if status < 0:
            return False, f"{self._how} was ended by signal {-status}{said}"
        return not status, f"{self._how} ended with exit status {status}{said}"

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)

    def _status(self) -> int | None:
        """Its exit status, or minus the number of the signal that ended it."""
        pid, self._pid = self._pid, -1
        try:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            return None

    def _close(self) -> None:
        if self._poll is not None:
            self._poll.cancel()
        for descriptor in (self._pipe, self._handle):
            if descriptor >= 0:
                self._loop.forget(descriptor)
                os.close(descriptor)
        self._pipe = self._handle = -1
