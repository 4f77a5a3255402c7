"""The seed's cluster: a Salt master, its minions, web servers to balance and a mail server."""

from __future__ import annotations

import email
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from email.message import Message
from pathlib import Path
from typing import Any

from tests.lab import cache, services
from tests.lab.errors import LabError
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.waiting import until

CHECKOUT = Path(__file__).resolve().parents[2]
MINIONS = ("lb1", "lb2", "rs1", "rs2")
WEB_SERVERS = ("rs1", "rs2")
PROGRAMS = ("salt", "salt-call", "salt-key", "salt-master", "salt-minion", "salt-pip", "salt-run")
MAILS = "/var/mail/lab"
RETURN_PORT = 4506

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

# Runs on the master: asks those who have not answered yet again and again, without the seconds that
# the salt command takes to start, and to make sure of those that do not answer.
ASK_UNTIL_ANSWERED = """\
import sys, time
import salt.client, salt.exceptions, salt.utils.event

end = time.monotonic() + float(sys.argv[1])
silent = set(sys.argv[2:])
client = salt.client.LocalClient()
with salt.utils.event.get_event("master", opts=client.opts, listen=True) as events:
    while silent and time.monotonic() < end:
        try:
            client.cmd_async(sorted(silent), "test.ping", tgt_type="list")
        except salt.exceptions.SaltException:
            time.sleep(1)
        next_try = time.monotonic() + 5
        while silent and time.monotonic() < next_try:
            event = events.get_event(wait=0.5, tag="salt/job/") or {}
            if event.get("fun") == "test.ping" and "return" in event:
                silent.discard(event["id"])
sys.exit(" ".join(sorted(silent)) or 0)
"""


class SaltCluster:
    """A Salt master on ``master`` and minions on the hosts named in ``minions``."""

    def __init__(self, lab: Lab, minions: Sequence[str] = MINIONS) -> None:
        self.lab = lab
        self.master = lab["master"]
        self.minions = tuple(minions)

    def start(self) -> None:
        """Install and start everything; does not wait for the minions (see ``wait``)."""
        self._install_master()
        services.start(self.master, "salt-master")
        self._install_servers()
        for name in self.minions:
            self._install_minion(self.lab[name])
        # A minion that finds no master waits longer than this takes.
        until(self._master_listens, "the master to listen", seconds=120)
        for name in self.minions:
            services.start(self.lab[name], "salt-minion")

    def _master_listens(self) -> bool:
        return f":{RETURN_PORT:04X} " in self.master.read("/proc/net/tcp")

    def wait(self, seconds: float = 120) -> None:
        """Wait until all minions answer."""
        ask: list[str | Path] = [_salt_virtualenv() / "bin" / "python", "-c", ASK_UNTIL_ANSWERED]
        done = self.master.run([*ask, str(seconds), *self.minions], timeout=seconds + 60)
        if done.returncode:
            raise LabError(f"no answer within {seconds:g} s from {done.stderr.strip()}")

    # Commands

    def salt(
        self, target: str, function: str, *arguments: str, timeout: int = 120, list_of: bool = False
    ) -> dict[str, Any]:
        """``salt TARGET FUNCTION ...`` on the master: what each minion returned, by its id."""
        options = ["--out=json", "--static", f"--timeout={timeout}", *(["--list"] * list_of)]
        done = self.master.run(
            ["salt", *options, target, function, *arguments], timeout=timeout + 60
        )
        return _json(done) if done.stdout.strip().startswith("{") else {}

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
        script = f'for mail in {MAILS}/*.eml; do cat "$mail"; printf "\\0"; done 2>/dev/null'
        texts = self.master.run(["sh", "-c", script]).stdout.split("\0")
        return [email.message_from_string(text) for text in texts if text]

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
        mail = [sys.executable, str(CHECKOUT / "tests/lab/smtpd.py"), MAILS]
        web = [sys.executable, str(CHECKOUT / "tests/lab/web.py")]
        services.install(self.master, "lab-mail", mail)
        services.start(self.master, "lab-mail")
        for name in WEB_SERVERS:
            services.install(self.lab[name], "lab-web", web)
            services.start(self.lab[name], "lab-web")

    def _install_minion(self, host: Host) -> None:
        _install_salt(host)
        config = MINION_CONFIG.format(name=host.name, master=self.master.address)
        host.write("/etc/salt/minion", config)
        services.install(host, "salt-minion", ["/usr/local/bin/salt-minion"])


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
