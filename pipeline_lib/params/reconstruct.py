"""Sections `precisions` (bit policies, one a key) and `reconstruct`."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline_lib.params.base import Section

Bits = Annotated[int, Field(ge=2, le=8)]
Rate = Annotated[float, Field(ge=0)]


class Precision(Section):
    """Nominal bits, and which tensors are excepted: see quantization/policies.py."""

    weight_bits: Bits
    activation_bits: Bits
    cnn_policy: Literal["brecq", "qdrop", "all"]
    vit_policy: Literal["vit", "all"]


class Family(Section):
    """Reconstruction of one family of networks."""

    iterations: Annotated[int, Field(ge=0)]  # a unit
    learning_rate_rounding: Rate
    learning_rate_weight_step: Rate  # of the logarithm of the step: relative; 0 keeps the step
    learning_rate_activation_step: Rate  # of the logarithm of the step: relative
    rounding_weight: Rate  # lambda of the rounding regulariser
    normalise_loss: bool  # divide by the unit's first loss


class Reconstruct(Section):
    """Block reconstruction; both families share what stands beside `cnn` and `vit`."""

    seed: Annotated[int, Field(ge=0)]
    held_out: Annotated[int, Field(ge=1)]  # images kept back from the calibration set to measure the gap on
    range_images: Annotated[int, Field(ge=1)]  # images the ranges of activations are searched on
    batch_size: Annotated[int, Field(ge=1)]
    drop: Annotated[float, Field(ge=0, le=1)]  # QDrop: share of values that stay float
    warmup: Annotated[float, Field(ge=0, lt=1)]  # share of iterations without the regulariser
    softmax: Literal["log-sqrt2", "uniform"]
    cnn: Family
    vit: Family
