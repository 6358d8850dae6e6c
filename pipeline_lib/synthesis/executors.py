"""Where shards are rendered, on this machine: `local`. Another executor takes the same arguments: see cluster.py."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from multiprocessing import connection

import torch

from pipeline_lib.errors import RunError
from pipeline_lib.synthesis.plan import Shard


@dataclass(frozen=True)
class RenderedShard:
    """A tar, and what it took."""

    tar: bytes
    device: str
    seconds: float  # of the whole
    packing_seconds: float  # of PNG encoding and taring, some of it beside the rendering


Worker = Callable[[Shard], RenderedShard]
MakeWorker = Callable[[torch.device], Worker]  # loads the model
Commit = Callable[[Shard, RenderedShard], None]
Executor = Callable[[Iterable[Shard], MakeWorker, Commit], None]

AHEAD = 2  # shards that wait for a worker, for each worker


def local(placement: Sequence[torch.device], todo: Iterable[Shard], make_worker: MakeWorker, commit: Commit) -> None:
    """Render every shard and commit each as soon as it is there, in any order.

    The model is loaded once for each device: in this process if there is one, else in a spawned process each;
    `make_worker` must then be picklable. An error in a worker is raised here; what was committed stays.

    Raises:
        RunError: a worker process died.
    """
    if len(placement) == 1:
        worker = make_worker(placement[0])
        for shard in todo:
            commit(shard, worker(shard))
        return
    context = multiprocessing.get_context("spawn")
    devices = context.SimpleQueue()
    for device in placement:
        devices.put(device)
    shards = iter(todo)
    pending: dict[Future[RenderedShard], Shard] = {}
    with ProcessPoolExecutor(len(placement), context, _start, (make_worker, devices)) as pool:
        try:
            while True:
                for shard in islice(shards, AHEAD * len(placement) - len(pending)):
                    pending[pool.submit(_render, shard)] = shard
                if not pending:
                    return
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    commit(pending.pop(future), future.result())
        except BrokenProcessPool:
            raise RunError(
                "a worker process died, killed from outside or for want of memory (lower `runtime.workers` in "
                "params.yaml then); run again, finished shards are kept"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_make: Callable[[], Worker]


def _start(make_worker: MakeWorker, devices: "multiprocessing.SimpleQueue[torch.device]") -> None:
    """Initialise a worker process, which must not outlive a killed parent.

    The model is loaded with the first shard: an error here would break the pool without saying why.
    """
    global _make
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (connection.wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    _make = cache(partial(make_worker, devices.get()))


def _render(shard: Shard) -> RenderedShard:
    return _make()(shard)
