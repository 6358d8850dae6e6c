"""Sections `precisions` (bit policies), `methods` (recipes of reconstruction) and `reconstruct`."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline_lib.params.base import Batch, Count, PositiveRate, Rate, Section, Seed, Share

Bits = Annotated[int, Field(ge=2, le=8)]
Iterations = Annotated[int, Field(ge=0, le=10_000_000)]
Ranges = Literal["lp", "percentile", "minmax"]
Grid = Literal["symmetric", "asymmetric"]
Granularity = Literal["channel", "tensor"]
Steps = Literal["log", "linear"]
Softmax = Literal["log-sqrt2", "uniform"]


class Override(Section):
    """Bits of single layers; what is absent stays as the policy has it."""

    weight_bits: Bits | None = None
    activation_bits: Bits | None = None  # of the tensor that the layer reads


class Precision(Section):
    """Nominal bits, and which tensors are excepted: see quantization/policies.py."""

    weight_bits: Bits
    activation_bits: Bits
    policies: dict[str, str] = Field(default_factory=dict)  # by family, where it is not the family's own
    overrides: dict[str, Override] = Field(default_factory=dict)  # by shell pattern of layers; they come last


class Method(Section):
    """How a unit is reconstructed; what sets BRECQ, QDrop, GENIE-M and RepQ-ViT apart. The defaults are QDrop's."""

    ranges: Ranges = "lp"  # of weights and activations, before reconstruction
    merge: Annotated[int, Field(ge=1, le=1000)] = 1  # adjacent blocks that make a unit (MRECG)
    iterations: Iterations = 20_000  # a unit; 0: rounded to nearest
    tune_iterations: Iterations = 0  # of all steps and biases together, after the units; 0: not
    tune_rate: PositiveRate = 1.0  # learning rates then, as a multiple of those below
    early_stop: Rate = 0.0  # relative fall of the loss below which a unit is finished early; 0: never
    learning_rate_rounding: Rate = 1e-3
    learning_rate_weight_step: Rate = 0.0  # 0 keeps the step
    learning_rate_activation_step: Rate = 4e-5
    learning_rate_bias: Rate = 0.0  # 0 keeps the bias
    learning_rate_integer: Rate = 0.0  # of the weights' integers in the tuning, in levels; 0 keeps them
    rounding_weight: Rate = 0.01  # lambda of the rounding regulariser
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.2  # share of iterations without the regulariser
    drop: Share = 0.5  # QDrop: share of values that stay float
    weights: Grid = "asymmetric"
    granularity: Granularity = "channel"  # of the weights' steps
    activations: Grid = "asymmetric"  # a tensor each
    steps: Steps = "log"  # what is learned: the logarithm, whose rates are relative, or the step itself
    normalise_loss: bool = False  # divide by the unit's first loss
    error: Literal["absolute", "relative", "cosine", "fisher"] = (
        "absolute"  # of a unit's output: quantization/losses.py
    )
    head: Literal["squared", "kl"] = "squared"  # loss of the last unit: its error, or the divergence of the classes


class Reconstruct(Section):
    """Block reconstruction: what all networks have in common."""

    seed: Seed = 0
    held_out: Count  # images kept back from the calibration set to measure the gap on
    range_images: Count = 128  # images the ranges of activations are searched on
    batch_size: Batch = 32
    softmax: Softmax = "log-sqrt2"  # or uniform, which integer runtimes have
    tf32: bool = False  # on a GPU: faster products with ten bits of mantissa
    methods: dict[str, str] = Field(default_factory=dict)  # by family of networks, where it is not the family's own
