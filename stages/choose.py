"""Choose the source that each network is calibrated on, without labels or real images."""

from pathlib import Path

from pipeline_lib.artifacts.provenance import recorded
from pipeline_lib.choice.choose import choose
from pipeline_lib.command import run
from pipeline_lib.models.device import resolve_device
from pipeline_lib.params.base import read
from pipeline_lib.params.choose import Choose
from pipeline_lib.params.reconstruct import Reconstruct
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.params.task import Axes, Task


def main() -> None:
    """Write data/choice/ranking.csv: for each model and precision the sources, their scores, and which is chosen."""
    axes, task, out = read(Axes, "axes"), read(Task, "task"), Path("data/choice/ranking.csv")
    with recorded("choose", "choose", ("torch", "timm", "safetensors"), [out]) as facts:
        facts |= choose(
            data=Path("data"),
            classifiers=Path(task.classifiers),
            axes=axes,
            held_out=read(Reconstruct, "reconstruct").held_out,
            calibration=read(Choose, "choose").calibration,
            device=resolve_device(read(Runtime, "runtime")),
            out=out,
        )


if __name__ == "__main__":
    run(main)
