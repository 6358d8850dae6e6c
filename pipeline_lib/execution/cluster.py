"""Tasks on a Ray cluster, whose machines see this folder and all that the workers read under the same paths."""

import logging
import socket
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from pipeline_lib.errors import InputError, RunError
from pipeline_lib.execution.tasks import AHEAD, Commit, MakeWorker, Result, T, Worker
from pipeline_lib.params.runtime import Runtime

RETRIES = 3  # of a task whose actor or machine died


class Actor:
    """A worker in a process of its own, somewhere in the cluster, on the device that Ray gave it."""

    def __init__(self, make_worker: MakeWorker[Any], device: str) -> None:
        self._make_worker, self._device = make_worker, torch.device(device)
        self._worker: Worker[Any] | None = None

    def run(self, task: Any) -> Result:
        """Run a task. The worker is made with the first one, whose retries then cover the loading too."""
        if self._worker is None:
            self._worker = self._make_worker(self._device)
        return self._worker(task)


def run_on_ray(runtime: Runtime, todo: Iterable[T], make_worker: MakeWorker[T], commit: Commit[T]) -> None:
    """As `tasks.Executor`, with an actor for each GPU of the cluster, or for each CPU.

    Raises:
        InputError: Ray is not installed, there is no cluster at the address, or it lacks what params.yaml asks for.
        RunError: actors died RETRIES + 1 times with the same task.
    """
    try:
        import ray
    except ImportError:
        raise InputError(
            "params.yaml: `runtime.executor` is ray, which is not installed; "
            "`pip install -r requirements-ray.txt -c constraints.txt`"
        ) from None
    environment = {"env_vars": {"PYTHONPATH": str(Path.cwd())}}
    try:
        _require_listener(runtime.ray.address)
        ray.init(runtime.ray.address, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Ray cluster at {runtime.ray.address!r} (`runtime.ray.address` in params.yaml): "
            f"{' '.join(str(error).split())}; start one with `ray start --head`"
        ) from None
    try:
        _hand_out(ray, _start_actors(ray, runtime, make_worker), todo, commit)
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Raise OSError if nobody listens at HOST:PORT, which Ray would find out after many minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _start_actors(ray: Any, runtime: Runtime, make_worker: MakeWorker[T]) -> list[Any]:
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
    on_gpus = runtime.device == "cuda" or (runtime.device == "auto" and gpus > 0)
    available, unit = (gpus, "GPU") if on_gpus else (cpus, "CPU")
    if available < max(1, runtime.workers):
        raise InputError(
            f"the Ray cluster has {available} {unit}s; params.yaml asks for {max(1, runtime.workers)} "
            "(`runtime.workers`, `runtime.device`)"
        )
    options = {"num_gpus": 1, "num_cpus": 0} if on_gpus else {"num_cpus": 1}
    remote = ray.remote(Actor).options(**options, max_restarts=RETRIES, max_task_retries=RETRIES)
    return [remote.remote(make_worker, "cuda" if on_gpus else "cpu") for _ in range(runtime.workers or available)]


def _hand_out(ray: Any, actors: list[Any], todo: Iterable[T], commit: Commit[T]) -> None:
    """Give tasks to the actors as these become free, until there are none left."""
    tasks = iter(todo)
    pending: dict[Any, tuple[T, Any]] = {}
    free = actors * AHEAD
    while True:
        for task in islice(tasks, len(free)):
            actor = free.pop()
            pending[actor.run.remote(task)] = task, actor
        if not pending:
            return
        for finished in ray.wait(list(pending))[0]:
            task, actor = pending.pop(finished)
            try:
                result = ray.get(finished)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayActorError as error:
                raise RunError(
                    f"{task.key}: its actor died {RETRIES + 1} times ({' '.join(str(error).split())}); "
                    "run again, finished work is kept"
                ) from None
            commit(task, result)
            free.append(actor)
