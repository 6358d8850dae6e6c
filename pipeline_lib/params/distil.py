"""Section `distil`."""

from typing import Annotated

from pydantic import Field

from pipeline_lib.params.base import Section


class Distil(Section):
    """How images are optimised for a network."""

    iterations: Annotated[int, Field(ge=1)]  # of a batch
    learning_rate: Annotated[float, Field(gt=0)]  # of the normalised pixels
    batch_size: Annotated[int, Field(ge=2)]  # images optimised together: the batch whose statistics are matched
    seed: Annotated[int, Field(ge=0)] = 0  # of the noise that they begin as
