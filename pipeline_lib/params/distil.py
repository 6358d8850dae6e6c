"""Section `distil`."""

from typing import Annotated

from pydantic import Field

from pipeline_lib.params.base import Count, PositiveRate, Section, Seed


class Distil(Section):
    """How images are optimised for a network."""

    iterations: Count  # of a batch
    learning_rate: PositiveRate  # of the normalised pixels
    batch_size: Annotated[
        int, Field(ge=2, le=65_536)
    ]  # images optimised together: the batch whose statistics are matched
    seed: Seed = 0  # of the noise that they begin as
