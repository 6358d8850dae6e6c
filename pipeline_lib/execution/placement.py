"""Where tasks run, by section `runtime` of params.yaml."""

from functools import partial

import torch

from pipeline_lib.errors import InputError
from pipeline_lib.execution.cluster import run_on_ray
from pipeline_lib.execution.local import run_locally
from pipeline_lib.execution.tasks import Executor
from pipeline_lib.params.runtime import Runtime


def executor(runtime: Runtime, tasks: int, most_cpu_workers: int) -> Executor:
    """What runs this number of tasks, at least one.

    `most_cpu_workers` bounds the processes on a CPU where `runtime.workers` leaves their number open; each holds its
    own copy of the model.

    Raises:
        InputError: CUDA was asked for and there is none.
    """
    if runtime.executor == "ray":
        return partial(run_on_ray, runtime)
    gpus = torch.cuda.device_count()
    if runtime.device == "cuda" and not gpus:
        raise InputError("params.yaml: `runtime.device` is cuda, but torch sees no CUDA device; set it to auto or cpu")
    if gpus and runtime.device != "cpu":
        placement = [torch.device("cuda", number % gpus) for number in range(runtime.workers or gpus)]
    else:
        placement = [torch.device("cpu")] * (runtime.workers or min(torch.get_num_threads(), most_cpu_workers))
    return partial(run_locally, placement[:tasks])
