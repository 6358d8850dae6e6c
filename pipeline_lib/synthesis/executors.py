"""Where shards are rendered. `run_shards` is the seam: other executors take the same three arguments."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache, partial
from multiprocessing.connection import wait

from pipeline_lib.synthesis.plan import Shard

Worker = Callable[[Shard], bytes]
MakeWorker = Callable[[int], Worker]
Commit = Callable[[Shard, bytes], None]


def run_shards(todo: Sequence[Shard], make_worker: MakeWorker, commit: Commit, workers: int) -> None:
    """Render every shard and commit each as soon as it is there, in any order.

    `make_worker(i)` loads the model once, in this process if there is one worker, else in spawned process number i;
    it and the shards must then be picklable. An error in a worker is raised here; what was committed stays.
    """
    if workers == 1:
        worker = make_worker(0)
        for shard in todo:
            commit(shard, worker(shard))
        return
    context = multiprocessing.get_context("spawn")
    numbers = context.SimpleQueue()
    for number in range(workers):
        numbers.put(number)
    with ProcessPoolExecutor(workers, context, _start, (make_worker, numbers)) as pool:
        futures = {pool.submit(_render, shard): shard for shard in todo}
        try:
            for future in as_completed(futures):
                commit(futures[future], future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_make: Callable[[], Worker]


def _start(make_worker: MakeWorker, numbers: "multiprocessing.SimpleQueue[int]") -> None:
    """Initialise a worker process, which must not outlive a killed parent.

    The model is loaded with the first shard: an error here would break the pool without saying why.
    """
    global _make
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    _make = cache(partial(make_worker, numbers.get()))


def _render(shard: Shard) -> bytes:
    return _make()(shard)
