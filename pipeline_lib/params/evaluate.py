"""Section `evaluate`."""

from typing import Annotated

from pydantic import Field

from pipeline_lib.params.base import Batch, Confidence, Section


class Evaluate(Section):
    """How a network is judged on the labelled images."""

    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0  # of the labelled images, chosen by their keys
    batch_size: Batch
    compared: Annotated[int, Field(ge=8, le=100_000)] = 512  # labelled images that calibration images are held against
    confidence: Confidence = 0.95  # of the intervals
