"""Sections `precisions` (bit policies), `methods` (recipes of reconstruction) and `reconstruct`."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline_lib.params.base import Section

Bits = Annotated[int, Field(ge=2, le=8)]
Rate = Annotated[float, Field(ge=0)]
Ranges = Literal["lp", "percentile", "minmax"]
Grid = Literal["symmetric", "asymmetric"]
Granularity = Literal["channel", "tensor"]
Steps = Literal["log", "linear"]


class Override(Section):
    """Bits of single layers; what is absent stays as the policy has it."""

    weight_bits: Bits | None = None
    activation_bits: Bits | None = None  # of the tensor that the layer reads


class Precision(Section):
    """Nominal bits, and which tensors are excepted: see quantization/policies.py."""

    weight_bits: Bits
    activation_bits: Bits
    cnn_policy: Literal["brecq", "qdrop", "deployable", "all"]
    vit_policy: Literal["vit", "deployable", "all"]
    overrides: dict[str, Override] = Field(
        default_factory=dict
    )  # by shell pattern of layer names, after the policy, in order


class Method(Section):
    """How a unit is reconstructed; what sets BRECQ, QDrop, GENIE-M and RepQ-ViT apart."""

    ranges: Ranges  # of weights and activations, before reconstruction
    merge: Annotated[int, Field(ge=1)]  # adjacent blocks that make a unit (MRECG)
    iterations: Annotated[int, Field(ge=0)]  # a unit; 0: rounded to nearest
    tune_iterations: Annotated[int, Field(ge=0)]  # of all steps and biases together, after the units; 0: not
    tune_rate: Annotated[float, Field(gt=0)]  # learning rates then, as a multiple of those below
    early_stop: Rate  # relative fall of the loss below which a unit is finished early; 0: never
    learning_rate_rounding: Rate
    learning_rate_weight_step: Rate  # 0 keeps the step
    learning_rate_activation_step: Rate
    learning_rate_bias: Rate  # 0 keeps the bias
    learning_rate_integer: Rate  # of the weights' integers in the tuning, in levels; 0 keeps them
    rounding_weight: Rate  # lambda of the rounding regulariser
    warmup: Annotated[float, Field(ge=0, lt=1)]  # share of iterations without the regulariser
    drop: Annotated[float, Field(ge=0, le=1)]  # QDrop: share of values that stay float
    weights: Grid
    granularity: Granularity  # of the weights' steps
    activations: Grid
    steps: Steps  # what is learned: the logarithm, whose rates are relative, or the step itself
    normalise_loss: bool  # divide by the unit's first loss
    error: Literal["absolute", "relative", "fisher"]  # squared; by the power of the image's output; FIMA-Q's
    head: Literal["squared", "kl"]  # loss of the last unit: of the logits, or divergence of the classes


class Reconstruct(Section):
    """Block reconstruction: what is common, and the method of each family of networks, a key of `methods`."""

    seed: Annotated[int, Field(ge=0)]
    held_out: Annotated[int, Field(ge=1)]  # images kept back from the calibration set to measure the gap on
    range_images: Annotated[int, Field(ge=1)]  # images the ranges of activations are searched on
    batch_size: Annotated[int, Field(ge=1)]
    softmax: Literal["log-sqrt2", "uniform"]
    tf32: bool  # on a GPU: faster products with ten bits of mantissa
    cnn: str
    vit: str
