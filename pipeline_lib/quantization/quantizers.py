"""Quantizers of activations, and the states that quantizers and layers go through."""

from abc import ABC, abstractmethod
from enum import Enum, auto
from typing import Any

import torch
from torch import Tensor, nn

from pipeline_lib.fakequant import fake_quant, fake_quant_drop, log_sqrt2_quant
from pipeline_lib.params.reconstruct import Ranges, Steps
from pipeline_lib.quantization.ranges import (
    PERCENTILES,
    SMALLEST,
    ActivationSample,
    search_asymmetric,
    search_symmetric,
)


class State(Enum):
    """What a quantizer or a layer computes with."""

    FLOAT = auto()  # nothing is quantized
    QUANTIZED = auto()  # on a grid that may still be learned
    LEARNING = auto()
    FROZEN = auto()  # on a grid that was learned, or restored


class LearnedStep(nn.Module):
    """A step that is learned: its logarithm, so that the learning rate is relative to it, or the step itself."""

    def __init__(self, step: Tensor, steps: Steps) -> None:
        super().__init__()
        self.log = steps == "log"
        self.value = nn.Parameter(step.log() if self.log else step.clone())

    def forward(self) -> Tensor:
        """The step, a positive number."""
        return self.value.exp() if self.log else self.value.clamp(min=SMALLEST)


class Quantizer(nn.Module, ABC):
    """A quantizer of an activation, with one grid for the whole tensor. Until it has a grid it lets values pass."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits, self.state = bits, State.FLOAT

    @abstractmethod
    def search_grid(self, sample: ActivationSample, ranges: Ranges) -> None:
        """Search the grid on a sample of the values to come, and quantize from now on."""

    def freeze(self) -> None:
        """Keep the grid as it is from now on. A quantizer that units share is learned, and frozen, with the first."""
        self.state = State.FROZEN

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """The entry of the quantizer in quantization.json."""

    def restore(self, description: dict[str, Any]) -> None:
        """Take over from its entry in quantization.json what is not among its tensors."""


class LearnableQuantizer(Quantizer):
    """A quantizer whose grid reconstruction learns."""

    seed: Tensor  # of the mask of kept values, an int64 scalar; the step of reconstruction puts a new one there

    @abstractmethod
    def learn(self, steps: Steps, drop: float) -> nn.Parameter:
        """Begin to learn the grid by the parameter that is returned; values stay float with probability `drop`."""


class UniformQuantizer(LearnableQuantizer):
    """A quantizer whose levels are evenly spaced."""

    step: Tensor
    zero_point: Tensor

    def __init__(self, bits: int, *, symmetric: bool) -> None:
        super().__init__(bits)
        self.symmetric = symmetric
        self.qmin, self.qmax = 0, 2**bits - 1
        self.register_buffer("step", torch.tensor(1.0))
        self.register_buffer("zero_point", torch.tensor(0.0))
        self.learning: LearnedStep | None = None
        self.keep = 1.0  # probability that a value is quantized
        self.seed = torch.tensor(0)  # of the mask of kept values

    def set_grid(self, step: Tensor, zero_point: Tensor) -> None:
        """Quantize with this grid from now on; step and zero_point are float32 ()."""
        self.step, self.zero_point, self.state = step, zero_point, State.QUANTIZED

    def search_grid(self, sample: ActivationSample, ranges: Ranges) -> None:
        """Search the grid; for `lp` ranges, an error counts relative to the values of its image."""
        weights = sample.weights if ranges == "lp" else None
        values = sample.extremes if ranges == "minmax" else sample.values
        if self.symmetric:
            step, zero_point, self.qmin, self.qmax = search_symmetric(values, self.bits, ranges, weights)
        else:
            step, zero_point = search_asymmetric(values, self.bits, None, ranges, weights)
        self.set_grid(step, zero_point)

    def learn(self, steps: Steps, drop: float) -> nn.Parameter:
        """Begin to learn the step by the parameter that is returned; values stay float with probability `drop`."""
        self.learning = LearnedStep(self.step, steps)
        self.keep = 1 - drop
        self.seed = torch.zeros((), dtype=torch.int64, device=self.step.device)
        self.state = State.LEARNING
        return self.learning.value

    def freeze(self) -> None:
        """Keep the step that was learned; all values are quantized from now on."""
        if self.learning is not None:
            self.step, self.learning, self.keep = self.learning().detach(), None, 1.0
        super().freeze()

    def description(self) -> dict[str, Any]:
        """Bits, granularity and levels."""
        return {"bits": self.bits, "granularity": "per tensor", "qmin": self.qmin, "qmax": self.qmax}

    def restore(self, description: dict[str, Any]) -> None:
        """Take over the lowest and the highest level."""
        self.qmin, self.qmax = description["qmin"], description["qmax"]

    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest value on the grid."""
        low, high = (self.step * (level - self.zero_point) for level in (self.qmin, self.qmax))
        return float(low), float(high)

    def forward(self, x: Tensor) -> Tensor:
        """Quantize and dequantize."""
        if self.state is State.FLOAT:
            return x
        step = self.step if self.learning is None else self.learning()
        quantized: Tensor
        if self.keep < 1:
            quantized = fake_quant_drop(x, step, self.zero_point, self.qmin, self.qmax, self.keep, self.seed)
        else:
            quantized = fake_quant(x, step, self.zero_point, self.qmin, self.qmax, None)
        return quantized


class LogSqrt2Quantizer(Quantizer):
    """The quantizer of RepQ-ViT after softmax, a simulation: integer runtimes have nothing like it."""

    step: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.register_buffer("step", torch.tensor(1.0))

    def search_grid(self, sample: ActivationSample, ranges: Ranges) -> None:
        """Search the highest level: the percentile with the least squared error, or for `minmax` the largest value."""
        values = sample.extremes if ranges == "minmax" else sample.values
        tops = [values.max()] if ranges == "minmax" else [values.quantile(p) for p in PERCENTILES]
        errors = [(values - log_sqrt2_quant(values, top, self.bits)).square().mean() for top in tops]
        self.step, self.state = torch.stack(tops)[torch.stack(errors).argmin()], State.QUANTIZED

    def description(self) -> dict[str, Any]:
        """Bits, granularity and kind."""
        return {"bits": self.bits, "granularity": "per tensor", "kind": "log-sqrt2"}

    def forward(self, x: Tensor) -> Tensor:
        """Quantize and dequantize."""
        return x if self.state is State.FLOAT else log_sqrt2_quant(x, self.step, self.bits)


def quantizers(network: nn.Module) -> dict[str, Quantizer]:
    """Activation quantizers by name; a shared one has the name of its first place."""
    return {name: module for name, module in network.named_modules() if isinstance(module, Quantizer)}


def learnable_quantizers(network: nn.Module) -> list[LearnableQuantizer]:
    """The quantizers whose grid can be learned, in the order of `quantizers`."""
    return [module for module in quantizers(network).values() if isinstance(module, LearnableQuantizer)]
