"""Quantize and judge in one go. The stages `reconstruct` and `evaluate` are its halves: DVC caches what is between."""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from pipeline_lib.calibration.sets import IMAGES
from pipeline_lib.quantization.quantize import Quantization, quantize

T = TypeVar("T")


def run_cell(
    name: str, calibration: Path, classifier: Path, quantization: Quantization, judge: Callable[[Path], T]
) -> tuple[T, float]:
    """What the judge says of the network, and the seconds that quantizing it took.

    Args:
        name: of the cell, for progress and for the work directory: a killed run continues at the next unit.
        calibration: folder of a calibration set.
        classifier: folder of the float network.
        quantization: precision, method, device.
        judge: is given the folder of the quantized network, which is gone afterwards.
    """
    with TemporaryDirectory() as folder:
        quantized = Path(folder) / name
        began = time.monotonic()
        quantize(calibration / IMAGES, classifier, quantization, quantized)
        seconds = time.monotonic() - began
        return judge(quantized), seconds
