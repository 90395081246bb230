"""One deadline, passed down, instead of time-outs that shrink by guesswork."""

from __future__ import annotations

import time
from dataclasses import dataclass

from vm.errors import HangError


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point on the monotonic clock by which something must be over.

    :param at: seconds on :func:`time.monotonic`.
    :param total: seconds that were granted, for messages.
    """

    at: float
    total: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline that lies ``seconds`` from now."""
        return cls(time.monotonic() + seconds, seconds)

    def within(self, seconds: float) -> Deadline:
        """Return the earlier of this deadline and ``seconds`` from now."""
        other = Deadline.after(seconds)
        return other if other.at < self.at else self

    def later(self, seconds: float) -> Deadline:
        """Return the deadline that lies ``seconds`` after this one: for time that was spent waiting for others."""
        return Deadline(self.at + seconds, self.total)

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - time.monotonic())

    @property
    def expired(self) -> bool:
        """Whether nothing is left."""
        return self.remaining <= 0.0

    def check(self, what: str, hint: str = "") -> None:
        """Raise :class:`~vm.errors.HangError` naming ``what`` if nothing is left."""
        if self.expired:
            raise HangError(f"{what} was not over within {self.total:.0f} s", hint)
