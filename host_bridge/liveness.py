"""When to ping, when to give a server up, when to try again: a pure state machine.

Any traffic is a heartbeat (zguide, chapter 4). After `idle_s` of silence a ping is due; a ping that nothing follows
within `patience_s` is a miss; `misses` of them make the server unreachable. Then a fresh socket is tried after
1, 2, 4 ... 32 s. Nothing here knows a socket or reads a clock: `now` is given, in seconds of any monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class Action(Enum):
    """What the owner of the socket has to do now."""

    NONE = "none"
    PING = "ping"
    RECONNECT = "reconnect"


class Phase(Enum):
    """`JOINING`: connected, nothing heard yet. `ALIVE`: heard. `LOST`: given up until `next_try`."""

    JOINING = "joining"
    ALIVE = "alive"
    LOST = "lost"


@dataclass(frozen=True)
class Schedule:
    """Seconds and counts of the rules above."""

    idle_s: float = 1.0
    patience_s: float = 1.0
    misses: int = 3
    backoff_s: float = 1.0
    backoff_max_s: float = 32.0


@dataclass(frozen=True)
class Liveness:
    """The state; every method returns the next one."""

    schedule: Schedule
    phase: Phase
    heard_at: float
    pinged_at: float
    missed: int = 0
    backoff_s: float = 0.0
    next_try: float = 0.0

    @classmethod
    def start(cls, now: float, schedule: Schedule | None = None) -> Liveness:
        """A fresh socket has said hello at `now`."""
        return cls(schedule or Schedule(), Phase.JOINING, now, now)

    def heard(self, now: float) -> Liveness:
        """Something arrived."""
        return replace(self, phase=Phase.ALIVE, heard_at=now, missed=0, backoff_s=0.0, next_try=0.0)

    def lost(self, now: float) -> Liveness:
        """Give the server up now, for a reason seen elsewhere (refused key, closed connection)."""
        wait = min(self.backoff_s * 2 or self.schedule.backoff_s, self.schedule.backoff_max_s)
        return replace(self, phase=Phase.LOST, backoff_s=wait, next_try=now + wait)

    def tick(self, now: float) -> tuple[Liveness, Action]:
        """What is due at `now`. After RECONNECT the state waits for an answer to the new socket's hello."""
        if self.phase is Phase.LOST:
            if now < self.next_try:
                return self, Action.NONE
            return replace(self, phase=Phase.JOINING, heard_at=now, pinged_at=now, missed=0), Action.RECONNECT
        if now < self.due():
            return self, Action.NONE
        if self.pinged_at > self.heard_at or self.phase is Phase.JOINING:
            missed = self.missed + 1
            if missed >= self.schedule.misses:
                return self.lost(now), Action.NONE
            return replace(self, missed=missed, pinged_at=now), Action.PING
        return replace(self, pinged_at=now), Action.PING

    def due(self) -> float:
        """When `tick` has something to do next."""
        if self.phase is Phase.LOST:
            return self.next_try
        if self.pinged_at > self.heard_at or self.phase is Phase.JOINING:
            return self.pinged_at + self.schedule.patience_s
        return self.heard_at + self.schedule.idle_s
