"""Shards on a Ray cluster. Its machines see this folder and the generator under the same paths."""

import logging
import socket
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from pipeline_lib.errors import InputError, RunError
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.synthesis.executors import AHEAD, Commit, MakeWorker, RenderedShard, Worker
from pipeline_lib.synthesis.plan import Shard

RETRIES = 3  # of a shard whose actor or machine died


class Actor:
    """A worker in a process of its own, somewhere in the cluster, on the device that Ray gave it."""

    def __init__(self, make_worker: MakeWorker, device: str) -> None:
        self._make, self._device = make_worker, torch.device(device)
        self._worker: Worker | None = None

    def render(self, shard: Shard) -> RenderedShard:
        """The model is loaded with the first shard, whose retries then cover the loading too."""
        if self._worker is None:
            self._worker = self._make(self._device)
        return self._worker(shard)


def on_ray(runtime: Runtime, todo: Iterable[Shard], make_worker: MakeWorker, commit: Commit) -> None:
    """As `executors.local`, with actors that take shards as they become free: one for each GPU, or for each CPU.

    Raises:
        InputError: Ray is not installed, there is no cluster at the address, or it lacks what params.yaml asks for.
        RunError: a shard failed RETRIES times because actors died.
    """
    try:
        import ray
    except ImportError:
        raise InputError(
            "params.yaml: `runtime.executor` is ray, which is not installed; `pip install -r requirements-ray.txt`"
        ) from None
    environment = {"env_vars": {"PYTHONPATH": str(Path.cwd())}}
    try:
        _knock(runtime.ray.address)
        ray.init(runtime.ray.address, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Ray cluster at {runtime.ray.address!r} (`runtime.ray.address` in params.yaml): "
            f"{' '.join(str(error).split())}; start one with `ray start --head`"
        ) from None
    try:
        _pull(ray, runtime, todo, make_worker, commit)
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError if nobody listens at HOST:PORT, which Ray would find out after many minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _pull(ray: Any, runtime: Runtime, todo: Iterable[Shard], make_worker: MakeWorker, commit: Commit) -> None:
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
    actors = [remote.remote(make_worker, "cuda" if on_gpus else "cpu") for _ in range(runtime.workers or available)]
    shards = iter(todo)
    pending: dict[Any, tuple[Shard, Any]] = {}
    free = actors * AHEAD
    while True:
        for shard in islice(shards, len(free)):
            actor = free.pop()
            pending[actor.render.remote(shard)] = shard, actor
        if not pending:
            return
        for finished in ray.wait(list(pending))[0]:
            shard, actor = pending.pop(finished)
            try:
                rendered = ray.get(finished)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayActorError as error:
                raise RunError(
                    f"shard {shard.name}: its actor died {RETRIES + 1} times ({' '.join(str(error).split())}); "
                    "run again, finished shards are kept"
                ) from None
            commit(shard, rendered)
            free.append(actor)
