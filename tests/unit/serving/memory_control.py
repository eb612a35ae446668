"""A control file without a file, for everything that reads one: what is published is there at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lockgate.traffic import control_file as codec
from lockgate.traffic.observed import State
from lockgate.traffic.plan import Plan


class MemoryControl:
    """
    Attributes:
        acks: generation, generation seen and state of each acknowledgement that told something new, oldest first.
        on_ack: is called before each of them, those included that tell nothing new.
    """

    def __init__(self) -> None:
        self.image = bytearray(codec.blank())
        self.acks: list[tuple[int, int, State]] = []
        self.on_ack: Callable[[], object] = lambda: None

    def publish(self, plan: Plan) -> None:
        codec.carry_out(self.image, codec.publish(self.image, plan))

    def is_at(self, path: Path) -> bool:
        return True

    def word(self) -> int:
        return codec.active_word(self.image)

    def read(self) -> codec.Reading:
        return codec.read(self.image)

    def acknowledge(self, *, generation: int, seen: int, state: State, n_requests: int) -> None:
        self.on_ack()
        if not self.acks or self.acks[-1] != (generation, seen, state):
            self.acks.append((generation, seen, state))

    def close(self) -> None:
        pass
