"""Section `calibrate`."""

from typing import Annotated

from pydantic import Field

from pipeline_lib.params.base import Section


class Calibrate(Section):
    """How many images a calibration set holds, and how they are drawn."""

    count: Annotated[int, Field(ge=1)]  # images
    seed: Annotated[int, Field(ge=0)] = 0  # of the noise, of the draw of real images, of treatments that mix
    preview: Annotated[int, Field(ge=1)]  # images that evaluation and report look at
