"""What is run and by whom: tasks, the workers that run them, and what a task gives."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch

AHEAD = 2  # tasks that are handed out for each worker: the one it runs, and one that waits for it


class Task(Protocol):
    """A unit of work."""

    @property
    def key(self) -> str:
        """Its name among the tasks of a run, for errors."""


@dataclass(frozen=True)
class Result:
    """What a task gives: bytes, and facts about how they came about, which JSON can hold."""

    content: bytes
    facts: dict[str, Any] = field(default_factory=dict)


T = TypeVar("T", bound=Task)
Worker = Callable[[T], Result]
MakeWorker = Callable[[torch.device], Worker[T]]  # loads what the tasks have in common, such as a model
Commit = Callable[[T, Result], None]


class Executor(Protocol):
    """Runs tasks on devices that it knows."""

    def __call__(self, todo: Iterable[T], make_worker: MakeWorker[T], commit: Commit[T]) -> None:
        """Run every task and commit its result as soon as it is there, in this process, in any order.

        Tasks are drawn from `todo` as workers become free. `make_worker` is called once for each worker; it and the
        tasks must be picklable where workers have processes of their own. What a worker raises is raised here; what was
        committed stays.
        """
