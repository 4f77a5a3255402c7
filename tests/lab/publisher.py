"""The ``salt`` command, kept warm: it spends most of its time on being loaded.

Runs on the master, with Salt's Python: each line that it reads is a question, each line that it
writes the answer (JSON). It keeps no connection, so that the master may come and go.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import salt.client
import salt.exceptions
import salt.utils.args
import salt.utils.event


def publish(
    target: str, target_type: str, function: str, arguments: list[str], timeout: int
) -> dict[str, Any]:
    """Return what each minion returned, with Salt's own words for those that did not."""
    client = salt.client.LocalClient()
    arg = salt.utils.args.parse_input(arguments)
    parts = client.cmd_cli(target, function, arg, tgt_type=target_type, timeout=timeout)
    return {name: answer["ret"] for part in parts for name, answer in (part or {}).items()}


def wait(minions: list[str], seconds: float) -> list[str]:
    """Ask until all minions have answered; return those that did not within ``seconds``.

    Without the seconds that ``salt`` takes to make sure of one that does not answer.
    """
    silent, end = set(minions), time.monotonic() + seconds
    client = salt.client.LocalClient()
    with salt.utils.event.get_event("master", opts=client.opts, listen=True) as events:
        while silent and time.monotonic() < end:
            try:
                client.cmd_async(sorted(silent), "test.ping", tgt_type="list")
            except salt.exceptions.SaltException:
                time.sleep(1)
            next_try = time.monotonic() + 5
            while silent and time.monotonic() < next_try:
                event = events.get_event(wait=0.5, tag="salt/job/", auto_reconnect=True) or {}
                if event.get("fun") == "test.ping" and "return" in event:
                    silent.discard(event["id"])
    return sorted(silent)


def main() -> None:
    """Answer until the input ends."""
    actions: dict[str, Callable[..., Any]] = {"publish": publish, "wait": wait}
    answers = sys.stdout
    sys.stdout = sys.stderr  # for what Salt prints
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = {"answer": actions[question.pop("action")](**question)}
        except Exception as error:  # noqa: BLE001 - told to the caller, who raises it
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
