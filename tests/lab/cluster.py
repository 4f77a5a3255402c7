"""The seed's cluster: a Salt master, its minions, web servers to balance and a mail server."""

from __future__ import annotations

import fnmatch
import io
import json
import os
import select
import subprocess
import sys
import tarfile
from collections.abc import Collection, Sequence
from email.message import Message
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.lab import cache, mail, services
from tests.lab.errors import LabError
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.waiting import until

CHECKOUT = Path(__file__).resolve().parents[2]
MINIONS = ("lb1", "lb2", "rs1", "rs2")
WEB_SERVERS = ("rs1", "rs2")
PROGRAMS = ("salt", "salt-call", "salt-key", "salt-master", "salt-minion", "salt-pip", "salt-run")
RETURN_PORT = 4506
LISTENS = "0A"  # TCP_LISTEN of include/net/tcp_states.h, as /proc/net/tcp has it
# The state that arranges a minion's restart where its configuration changed.
RESTART = "lvs-minion-restart"

MASTER_CONFIG = """\
interface: {address}
auto_accept: True
worker_threads: 2
# The tree as a clean checkout has it; and the lab's own top file.
file_roots:
  base: [/srv/salt, /srv/lab]
pillar_roots:
  base: [/srv/pillar]
  production: [/srv/pillar/production]
  staging: [/srv/pillar/staging]
"""

MINION_CONFIG = """\
id: {name}
master: {master}
# What only costs time here: names of addresses, graphics cards, waiting for a key's acceptance.
enable_fqdns_grains: False
enable_gpu_grains: False
acceptance_wait_time: 1
"""

TOP = """\
base:
  '*': [lvs]
"""


class SaltCluster:
    """A Salt master on ``master``, minions on the hosts ``minions``, web servers on others.

    ``with SaltCluster(lab) as cluster:`` starts it and waits until all minions answer.
    """

    def __init__(
        self,
        lab: Lab,
        minions: Sequence[str] = MINIONS,
        web_servers: Sequence[str] = WEB_SERVERS,
    ) -> None:
        self.lab = lab
        self.master = lab["master"]
        self.minions = tuple(minions)
        self.web_servers = tuple(web_servers)
        self._publisher = Publisher(self.master)

    def __enter__(self) -> SaltCluster:
        self.start()
        # Once in some hundred starts a minion never gets through with its first login. That is
        # Salt's; what is tried here begins after it.
        for name in self._silent(self.minions, 60):
            services.restart(self.lab[name], "salt-minion")
        self.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Install and start everything; does not wait for the minions (see ``wait``)."""
        self._install_master()
        services.start(self.master, "salt-master")
        self._install_servers()
        for name in self.minions:
            self._install_minion(self.lab[name])
        # A minion that finds no master waits longer than this takes.
        until(self.master_listens, "the master to listen", seconds=120)
        for name in self.minions:
            services.start(self.lab[name], "salt-minion")
        # The master's own side, as README.md has it; minions sync themselves.
        self.salt_run("saltutil.sync_all")

    def master_listens(self) -> bool:
        """Whether the master runs and takes what minions return."""
        sockets = [line.split() for line in self.master.read("/proc/net/tcp").splitlines()]
        return any(
            local.endswith(f":{RETURN_PORT:04X}") and state == LISTENS
            for _, local, _, state, *_ in sockets
        )

    def wait(self, seconds: float = 120) -> None:
        """Wait until all minions answer."""
        self._wait_for(self.minions, seconds)

    def _wait_for(self, minions: Collection[str], seconds: float = 120) -> None:
        silent = self._silent(minions, seconds)
        if silent:
            told = "".join(f"\n{name}: {self._last_words(name)}" for name in silent)
            raise LabError(f"no answer within {seconds:g} s from {' '.join(silent)}{told}")

    def _silent(self, minions: Collection[str], seconds: float) -> list[str]:
        """Wait for the answers of minions; who gave none in time."""
        question = {"action": "wait", "minions": list(minions), "seconds": seconds}
        return list(self._publisher.ask(question, seconds + 60))

    def _last_words(self, name: str) -> str:
        log = ["tail", "-n", "5", "/var/log/salt/minion"]
        return self.lab[name].run(log).stdout.strip() or "nothing in its log"

    def highstate(self, target: str = "*", *arguments: str) -> dict[str, Any]:
        """Apply the highstate; what the minions returned, once those it restarts answer again.

        A minion that failed does not restart, so this does not wait for it.
        """
        asked = fnmatch.filter(self.minions, target)
        before = {name: self._minion_process(name) for name in asked}
        returned = self.salt(target, "state.apply", *arguments, timeout=300)
        restarting = [name for name in asked if _restarts_minion(returned.get(name))]
        if not restarting:
            return returned
        until(
            lambda: all(
                self._minion_process(name) not in ("", before[name]) for name in restarting
            ),
            f"{', '.join(restarting)} to be restarted",
            seconds=90,
            pause=1,
        )
        self._wait_for(restarting)
        return returned

    def _minion_process(self, name: str) -> str:
        return self.lab[name].run(["cat", "/run/salt-minion.pid"]).stdout.strip()

    def close(self) -> None:
        """Let go of the master; daemons run on until the lab ends."""
        self._publisher.close()

    # Commands

    def salt(
        self, target: str, function: str, *arguments: str, timeout: int = 120, list_of: bool = False
    ) -> dict[str, Any]:
        """``salt TARGET FUNCTION ...`` on the master: what each minion returned, by its id.

        For one that did not return within ``timeout`` seconds it is Salt's text that says so.
        """
        question = {
            "action": "publish",
            "target": target.split(",") if list_of else target,
            "target_type": "list" if list_of else "glob",
            "function": function,
            "arguments": arguments,
            "timeout": timeout,
        }
        return dict(self._publisher.ask(question, timeout + 60))

    def salt_run(self, function: str, *arguments: str, timeout: int = 120) -> Any:
        """``salt-run FUNCTION ...`` on the master: what the runner returned."""
        return _json(
            self.master.run(["salt-run", "--out=json", function, *arguments], timeout=timeout)
        )

    def call(self, name: str, function: str, *arguments: str, timeout: int = 120) -> Any:
        """``salt-call FUNCTION ...`` on a minion: what the function returned."""
        command = ["salt-call", "--out=json", function, *arguments]
        return _json(self.lab[name].run(command, timeout=timeout))["local"]

    def mails(self) -> list[Message]:
        """The mails that the mail server on the master has taken, oldest first."""
        return mail.taken(self.master)

    # Installation

    def _install_master(self) -> None:
        _install_salt(self.master)
        self.master.write("/etc/salt/master", MASTER_CONFIG.format(address=self.master.address))
        _copy_checkout(self.master, "/srv/salt")
        self.master.run(["cp", "-r", "/srv/salt/pillar.example", "/srv/pillar"], check=True)
        self.master.write("/srv/lab/top.sls", TOP)
        services.install(self.master, "salt-master", ["/usr/local/bin/salt-master"])

    def _install_servers(self) -> None:
        """What the cluster is for, and where its mail goes; both with the Python that runs this."""
        mail.serve(self.master)
        web = [sys.executable, str(CHECKOUT / "tests/lab/web.py")]
        for name in self.web_servers:
            services.install(self.lab[name], "lab-web", web)
            services.start(self.lab[name], "lab-web")

    def _install_minion(self, host: Host) -> None:
        _install_salt(host)
        config = MINION_CONFIG.format(name=host.name, master=self.master.address)
        host.write("/etc/salt/minion", config)
        services.install(host, "salt-minion", ["/usr/local/bin/salt-minion"])


def _restarts_minion(returned: Any) -> bool:
    """Whether a highstate has arranged that the minion restarts after it."""
    return isinstance(returned, dict) and any(
        state["__id__"] == RESTART and state["result"] and state["changes"]
        for state in returned.values()
    )


class Publisher:
    """The program ``publisher.py`` on the master, started when it is needed."""

    def __init__(self, master: Host) -> None:
        self._master = master
        self._process: subprocess.Popen[str] | None = None

    def ask(self, question: dict[str, Any], seconds: float) -> Any:
        """Ask one question and return its answer, which may take ``seconds``."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
        readable, _, _ = select.select([process.stdout], [], [], seconds)
        line = process.stdout.readline() if readable else ""
        if not line:
            self.close()
            raise LabError(f"the master gave no answer within {seconds:g} s to {question}")
        told = json.loads(line)
        if "error" in told:
            raise LabError(f"{question}: {told['error']}")
        return told["answer"]

    def close(self) -> None:
        """End the program."""
        if self._process is None:
            return
        self._process.kill()
        self._process.communicate()
        self._process = None

    def _running(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is not None:
            self.close()  # the master was switched off
        if self._process is None:
            program = CHECKOUT / "tests/lab/publisher.py"
            self._process = self._master.popen(
                # Isolated: modules beside the program are not Salt's to import.
                [_salt_virtualenv() / "bin" / "python", "-I", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        return self._process


def _salt_virtualenv() -> Path:
    """The virtualenv that holds Salt and nothing else."""
    chosen = os.environ.get("SALTEXT_LVS_SALT_VENV")
    return Path(chosen) if chosen else cache.folder() / "salt-3008"


def _install_salt(host: Host) -> None:
    """Put Salt's programs on the path, as a package would."""
    virtualenv = _salt_virtualenv()
    if not (virtualenv / "bin" / "salt-minion").exists():
        raise LabError(f"there is no Salt in {virtualenv}")
    links = [str(virtualenv / "bin" / program) for program in PROGRAMS]
    host.run(["ln", "-s", *links, "/usr/local/bin"], check=True)


def _copy_checkout(host: Host, folder: str) -> None:
    """Copy what git tracks or would track into ``folder`` of ``host``."""
    listing = subprocess.run(
        ["git", "-c", f"safe.directory={CHECKOUT}", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    names = [name for name in listing.split("\0") if name and (CHECKOUT / name).is_file()]
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in names:
            archive.add(CHECKOUT / name, arcname=name)
    host.unpack(stream.getvalue(), folder)


def _json(done: subprocess.CompletedProcess[str]) -> Any:
    """What a Salt command printed as JSON."""
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise LabError(
            f"{' '.join(map(str, done.args))} ended with {done.returncode} and no JSON:\n"
            f"{done.stdout}{done.stderr}"
        ) from None
