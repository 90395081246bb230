"""What machines of every provider have in common: they are known by what is registered of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from vm.errors import MachineError
from vm.machine import MachineFacts
from vm.registry import Registration, Registry

CONSOLE = "console.log"


class RegisteredMachine(ABC):
    """The part of :class:`vm.machine.Machine` that follows from a registration.

    :param registry: where it is written when it changes.
    """

    def __init__(self, registry: Registry, registration: Registration) -> None:
        self._registry = registry
        self._registration = registration

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def name(self) -> str:
        """How a person finds it again."""
        return self._registration.name

    @property
    def folder(self) -> Path:
        """Its own folder: logs, keys, and what its provider keeps there."""
        return self._registry.path(self.name)

    @property
    def owner(self) -> str:
        """``run`` or ``person``."""
        return self._registration.owner

    @property
    def registration(self) -> Registration:
        """What is registered of it."""
        return self._registration

    @property
    def console_path(self) -> Path:
        """The log of the kernel's console; it outlives the machine. Plain ``vagrant up`` keeps none."""
        return self.folder / CONSOLE

    @property
    def pid(self) -> int:
        """QEMU's process; 0 where there is none, or none that can be seen."""
        return self._registration.qemu.pid if self._registration.qemu else 0

    @property
    def cpu_threads(self) -> tuple[int, ...]:
        """The threads of QEMU that run its CPUs."""
        return tuple(self._registration.cpu_threads)

    def facts(self) -> MachineFacts:
        """Return what the machine is."""
        if self._registration.facts is None:
            raise MachineError(f"machine {self.name} has not come up")
        return self._registration.facts

    def update(self, **changes: object) -> None:
        """Change what is registered of it."""
        self._registration = msgspec.structs.replace(self._registration, **changes)
        self._registry.write(self._registration)

    @abstractmethod
    def stop(self) -> None:
        """End it and remove what it used; its console log stays."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
