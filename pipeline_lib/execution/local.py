"""Tasks on the devices of this machine."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cache, partial
from itertools import islice
from multiprocessing import connection
from typing import Any

import torch

from pipeline_lib.errors import RunError
from pipeline_lib.execution.tasks import AHEAD, Commit, MakeWorker, Result, T, Worker


def run_locally(
    placement: Sequence[torch.device], todo: Iterable[T], make_worker: MakeWorker[T], commit: Commit[T]
) -> None:
    """As `tasks.Executor`. A single device is worked on in this process, each of several in a spawned process.

    Raises:
        RunError: a worker process died.
    """
    if len(placement) == 1:
        worker = make_worker(placement[0])
        for task in todo:
            commit(task, worker(task))
        return
    context = multiprocessing.get_context("spawn")
    devices = context.SimpleQueue()
    for device in placement:
        devices.put(device)
    tasks = iter(todo)
    pending: dict[Future[Result], T] = {}
    with ProcessPoolExecutor(len(placement), context, _start, (make_worker, devices)) as pool:
        try:
            while True:
                for task in islice(tasks, AHEAD * len(placement) - len(pending)):
                    pending[pool.submit(_run, task)] = task
                if not pending:
                    return
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    commit(pending.pop(future), result)
        except BrokenProcessPool:
            keys = ", ".join(task.key for task in pending.values())
            raise RunError(
                f"a worker process died while {keys} were under way, killed from outside or for want of memory (lower "
                "`runtime.workers` in params.yaml then); run again, finished work is kept"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)  # waits for tasks that are under way


_worker: Callable[[], Worker[Any]]  # of this process, if it is a spawned one


def _start(make_worker: MakeWorker[Any], devices: "multiprocessing.SimpleQueue[torch.device]") -> None:
    """Initialise a worker process, which must not outlive a killed parent.

    The worker is made with the first task: an error here would break the pool without saying why.
    """
    global _worker
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (connection.wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    _worker = cache(partial(make_worker, devices.get()))


def _run(task: Any) -> Result:
    return _worker()(task)
