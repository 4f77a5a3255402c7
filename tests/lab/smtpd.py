"""The lab's mail server: takes every mail on port 25 and keeps it as a file.

Runs in a host, as ``python smtpd.py FOLDER``, with aiosmtpd.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session


class Keep:
    """Writes each mail to ``FOLDER/<number>.eml``, whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(len(list(folder.glob("*.eml"))) + 1)

    async def handle_DATA(self, _server: SMTP, _session: Session, mail: Envelope) -> str:  # noqa: N802
        """Store the mail with its envelope in two header lines before it."""
        envelope = (
            f"X-Envelope-From: {mail.mail_from}\r\nX-Envelope-To: {', '.join(mail.rcpt_tos)}\r\n"
        )
        assert mail.original_content is not None
        part = self._folder / "part"
        part.write_bytes(envelope.encode() + mail.original_content)
        part.rename(self._folder / f"{next(self._numbers):04}.eml")
        return "250 OK"


async def main(folder: Path) -> None:
    """Serve until killed."""
    folder.mkdir(parents=True, exist_ok=True)
    keep = Keep(folder)
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(keep), "0.0.0.0", 25)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
