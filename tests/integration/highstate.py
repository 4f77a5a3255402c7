"""What a highstate returned, read as a person reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.lab.cluster import SaltCluster

# The minion's restart is arranged where its configuration changed, after everything else.
RESTART = "lvs-minion-restart"


@dataclass(frozen=True)
class Highstate:
    """The answers of all minions to one ``state.apply``."""

    returned: dict[str, Any]

    @classmethod
    def run(cls, cluster: SaltCluster, target: str = "*", test: bool = False) -> Highstate:
        """Apply the highstate to some minions, and wait for it."""
        arguments = ["test=True"] if test else []
        return cls(cluster.highstate(target, *arguments))

    def states(self, minion: str) -> dict[str, Any]:
        """A minion's states by their ids in the SLS."""
        answer = self.returned[minion]
        assert isinstance(answer, dict), f"{minion} could not compile its states: {answer}"
        return {state["__id__"]: state for state in answer.values()}

    def of(self, minion: str, state_id: str) -> dict[str, Any]:
        """One state's answer."""
        found: dict[str, Any] = self.states(minion)[state_id]
        return found

    def failed(self) -> dict[str, list[str]]:
        """What went wrong, by minion: the ids of failed states with their comments."""
        found = {
            minion: [
                f"{state_id}: {state['comment']}"
                for state_id, state in self.states(minion).items()
                if state["result"] is False
            ]
            for minion in self.returned
        }
        return {minion: told for minion, told in found.items() if told}

    def changing(self) -> dict[str, list[str]]:
        """By minion, the ids of states that changed something, or would."""
        return {
            minion: sorted(
                state_id
                for state_id, state in self.states(minion).items()
                if state["changes"] or state["result"] is None
            )
            for minion in self.returned
        }
