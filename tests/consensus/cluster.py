"""Replicas whose disks and network take no time, for tests of single rules."""

from __future__ import annotations

from random import Random

from testbed.consensus.membership import Membership
from testbed.consensus.messages import Message
from testbed.consensus.outputs import Apply, Output, Role, Send, Write
from testbed.consensus.replica import Outputs, Replica
from testbed.consensus.settings import Settings
from testbed.consensus.storage import Stored

SETTINGS = Settings(election_timeout_s=1.0, heartbeat_s=0.1)


class Cluster:
    def __init__(self, *names: str, settings: Settings = SETTINGS) -> None:
        self.now_s = 0.0
        self._settings = settings
        self.replicas: dict[str, Replica] = {}
        self.away: set[str] = set()
        """Nothing reaches them, nothing comes from them."""
        self.outputs: dict[str, list[Output]] = {}
        self.sent: list[Message] = []
        for name in names:
            self.add(name, Stored.nothing(Membership(names)))

    def add(self, name: str, stored: Stored) -> Replica:
        self.outputs[name] = []
        self.replicas[name] = Replica(name, stored, self._settings, Random(name), self.now_s)
        return self.replicas[name]

    def do(self, name: str, outputs: Outputs) -> None:
        """All that is to be done, and all that follows from it."""
        todo = [(name, output) for output in outputs]
        while todo:
            name, output = todo.pop(0)
            self.outputs[name].append(output)
            more: Outputs = ()
            match output:
                case Write():
                    more = self.replicas[name].persisted(output.number, self.now_s)
                case Send() if not {name, output.to} & self.away and output.to in self.replicas:
                    self.sent.append(output.message)
                    answers = self.replicas[output.to].receive(output.message, self.now_s)
                    todo += [(output.to, answer) for answer in answers]
            todo += [(name, output) for output in more]

    def elect(self, name: str) -> Replica:
        """Its election time-out ends, and everybody's memory of a leader."""
        self.now_s += 1.0
        replica = self.replicas[name]
        self.now_s = max(self.now_s, replica.next_deadline())
        self.do(name, replica.tick(self.now_s))
        assert replica.role is Role.LEADER
        return replica

    def pass_time(self, duration_s: float) -> None:
        end_s = self.now_s + duration_s
        while True:
            deadline_s, name = min((replica.next_deadline(), name) for name, replica in self.replicas.items())
            if deadline_s > end_s:
                break
            self.now_s = max(self.now_s, deadline_s)
            self.do(name, self.replicas[name].tick(self.now_s))
        self.now_s = end_s

    def propose(self, name: str, command: object) -> None:
        self.do(name, self.replicas[name].propose(command, command, self.now_s))

    def take(self, name: str, kind: type[Output]) -> list[Output]:
        """The outputs of a kind since the last time."""
        taken = [output for output in self.outputs[name] if isinstance(output, kind)]
        self.outputs[name] = []
        return taken

    def applied(self, name: str) -> list[object]:
        return [
            entry.command
            for output in self.outputs[name]
            if isinstance(output, Apply)
            for entry in output.entries
            if entry.command is not None
        ]
