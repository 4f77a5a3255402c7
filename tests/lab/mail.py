"""The mail server of a host, and the mails that it took."""

from __future__ import annotations

import email
import sys
from email.message import Message
from pathlib import Path

from tests.lab import services
from tests.lab.host import Host

FOLDER = "/var/mail/lab"
PROGRAM = Path(__file__).parent / "smtpd.py"


def serve(host: Host) -> None:
    """Install and start the server, which listens on port 25 of all addresses."""
    services.install(host, "lab-mail", [sys.executable, str(PROGRAM), FOLDER])
    services.start(host, "lab-mail")


def taken(host: Host) -> list[Message]:
    """The mails that the server has taken, oldest first."""
    script = f'for mail in {FOLDER}/*.eml; do cat "$mail"; printf "\\0"; done 2>/dev/null'
    texts = host.run(["sh", "-c", script]).stdout.split("\0")
    return [email.message_from_string(text) for text in texts if text]
