"""How long a run will take, and how much of the disk, roughly: from what was timed while looking."""

import math
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.doctor.findings import Finding
from pipeline_lib.params.everything import Params
from pipeline_lib.params.reconstruct import Method

# A step of reconstruction, forward and backward through fake quantization, takes this many forward passes of its batch;
# measured with the default preset's networks on a CPU.
PASSES_OF_A_STEP = 12.0
COPIES = 2  # of what a stage writes: one in data/, one in DVC's cache


@dataclass
class Costs:
    """What was timed."""

    seconds_of_an_image: float | None = None  # rendered alone, by one process
    seconds_of_cells: float = 0.0  # all sources and precisions of the networks that were looked at
    bytes_of_sets: int = 0  # calibration sets

    def add_network(self, params: Params, method: Method, input_size: Sequence[int], seconds: float) -> None:
        """Count the cells of a network that takes so many seconds for an image."""
        axes, steps = params.axes, method.iterations + method.tune_iterations
        quantizing = steps * params.reconstruct.batch_size * PASSES_OF_A_STEP * seconds
        cells = len(axes.sources) * len(axes.precisions)
        self.seconds_of_cells += cells * quantizing
        self.bytes_of_sets += len(axes.made) * params.calibrate.count * math.prod(input_size)


def cost_findings(params: Params, costs: Costs) -> Iterator[Finding]:
    """Time and disk, and whether there is room."""
    images = sum(params.prompts[recipe].count for recipe in params.axes.recipes)
    if costs.seconds_of_an_image is None:
        rendering = f"{images} images, whose time nobody measured" if images else "no images to render"
    else:
        seconds = images * costs.seconds_of_an_image / _processes(params)
        rendering = f"rendering {_duration(seconds)} for {images} images"
    quantizing = f"quantizing {_duration(costs.seconds_of_cells)}"
    yield Finding("OK", "time", f"{rendering}; {quantizing}; within a factor of three")
    needed = COPIES * (images * 3 * params.synthesize.image_size**2 + costs.bytes_of_sets)
    free = shutil.disk_usage(Path()).free
    text = f"up to {_gib(needed)} GiB in data/ and DVC's cache, {_gib(free)} GiB are free"
    yield Finding("OK" if needed < free else "WARN", "disk", text)


def _processes(params: Params) -> int:
    return params.runtime.workers or min(4, os.cpu_count() or 1)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f}"
