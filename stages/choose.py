"""Choose the source that each network is calibrated on, without labels or real images."""

from pathlib import Path

from pipeline_lib.choice.choose import choose
from pipeline_lib.command import run
from pipeline_lib.models.device import resolve_device
from pipeline_lib.params.base import read
from pipeline_lib.params.choose import Choose
from pipeline_lib.params.reconstruct import Reconstruct
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.params.task import Axes, Task
from pipeline_lib.provenance.record import Kind, recorded


def main() -> None:
    """Write data/choice/ranking.csv: for each model and precision the sources, their scores, and which is chosen."""
    axes, task, out = read(Axes, "axes"), read(Task, "task"), Path("data/choice/ranking.csv")
    calibrations, checkpoints, classifiers = Path("data/calibration"), Path("data/quantized"), Path(task.classifiers)
    inputs: dict[Path, Kind] = {calibrations: "made", checkpoints: "made", classifiers: "classifier weights"}
    with recorded("choose", "choose", ("torch", "timm", "safetensors"), [out], inputs) as facts:
        facts |= choose(
            data=Path("data"),
            classifiers=classifiers,
            axes=axes,
            held_out=read(Reconstruct, "reconstruct").held_out,
            calibration=read(Choose, "choose").calibration,
            device=resolve_device(read(Runtime, "runtime")),
            out=out,
        )


if __name__ == "__main__":
    run(main)
