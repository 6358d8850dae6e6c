"""Quantizers of activations, and layers that quantize their weight and what they read."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pipeline_lib.fakequant import fake_quant, fake_quant_drop, log_sqrt2_quant, soft_round
from pipeline_lib.fakequant.reference import GAMMA, ZETA
from pipeline_lib.params.reconstruct import Ranges, Steps
from pipeline_lib.quantization.ranges import (
    PERCENTILES,
    SMALLEST,
    Sample,
    search_asymmetric,
    search_centred,
    search_symmetric,
)

NARROW = 8  # input channels; below it, oneDNN errs in the gradient of a strided 1x1 convolution's weight


def take_stride(layer: nn.Module) -> tuple[int, int]:
    """The stride of a narrow 1x1 convolution, which has none any more: whoever calls it skips these pixels before.

    The function is the same. oneDNN, PyTorch's convolutions on a CPU, writes beyond its buffer in the gradient of such
    a weight where images are channels_last (its issue 6035, seen on AVX2); with stride 1 it does not.
    """
    if not isinstance(layer, nn.Conv2d) or layer.in_channels >= NARROW:
        return 1, 1
    if layer.kernel_size != (1, 1) or layer.padding not in ((0, 0), "valid"):
        return 1, 1
    vertical, horizontal = layer.stride
    layer.stride = 1, 1
    return vertical, horizontal


class LearnedStep(nn.Module):
    """A step that is learned by its logarithm, whose rate is relative, or as it is."""

    def __init__(self, step: Tensor, how: Steps) -> None:
        super().__init__()
        self.log = how == "log"
        self.value = nn.Parameter(step.log() if self.log else step.clone())

    def forward(self) -> Tensor:
        """The step; never below SMALLEST."""
        return self.value.exp() if self.log else self.value.clamp(min=SMALLEST)


class UniformQuantizer(nn.Module):
    """Per-tensor uniform quantizer of an activation. It passes values through until it has a grid."""

    step: Tensor
    zero_point: Tensor

    def __init__(self, bits: int, *, symmetric: bool) -> None:
        super().__init__()
        self.bits, self.symmetric, self.enabled = bits, symmetric, False
        self.qmin, self.qmax = 0, 2**bits - 1
        self.register_buffer("step", torch.tensor(1.0))
        self.register_buffer("zero_point", torch.tensor(0.0))
        self.learned = False  # done with: a quantizer that several units share is learned with the first
        self.learning: LearnedStep | None = None
        self.keep = 1.0  # probability that a value is quantized
        self.seed = torch.tensor(0)  # of the mask of kept values

    def set_grid(self, step: Tensor, zero_point: Tensor) -> None:
        """Quantize from now on."""
        self.step, self.zero_point, self.enabled = step, zero_point, True

    def search_grid(self, sample: Sample, how: Ranges) -> None:
        """Search the grid on a sample of the values to come."""
        weights = sample.weights if how == "lp" else None
        if self.symmetric:
            step, zero_point, self.qmin, self.qmax = search_symmetric(sample.values, self.bits, how, weights)
        else:
            step, zero_point = search_asymmetric(sample.values, self.bits, None, how, weights)
        self.set_grid(step, zero_point)

    def learn(self, how: Steps, drop: float) -> nn.Parameter:
        """Learn the step by the parameter returned, and let values stay float with probability `drop`."""
        self.learning, self.keep = LearnedStep(self.step, how), 1 - drop
        self.seed = torch.zeros((), dtype=torch.int64, device=self.step.device)
        return self.learning.value

    def freeze(self) -> None:
        """Keep what was learned; nothing is dropped any more."""
        if self.learning is not None:
            self.step, self.learning, self.keep = self.learning().detach(), None, 1.0
        self.learned = True

    def forward(self, x: Tensor) -> Tensor:
        """Quantize and dequantize."""
        if not self.enabled:
            return x
        step = self.step if self.learning is None else self.learning()
        quantized: Tensor
        if self.keep < 1:
            quantized = fake_quant_drop(x, step, self.zero_point, self.qmin, self.qmax, self.keep, self.seed)
        else:
            quantized = fake_quant(x, step, self.zero_point, self.qmin, self.qmax, None)
        return quantized


class LogSqrt2Quantizer(nn.Module):
    """Quantizer after softmax (RepQ-ViT); it has no form in an integer runtime: simulation only."""

    step: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits, self.enabled = bits, False
        self.register_buffer("step", torch.tensor(1.0))

    def search_grid(self, sample: Sample, how: Ranges) -> None:
        """The first level: of RepQ-ViT's percentiles the one with the least squared error, or the largest value."""
        values = sample.values
        tops = [values.max()] if how == "minmax" else [values.quantile(p) for p in PERCENTILES]
        errors = [(values - log_sqrt2_quant(values, top, self.bits)).square().mean() for top in tops]
        self.step, self.enabled = torch.stack(tops)[torch.stack(errors).argmin()], True

    def forward(self, x: Tensor) -> Tensor:
        """Quantize and dequantize."""
        return log_sqrt2_quant(x, self.step, self.bits) if self.enabled else x


Quantizer = UniformQuantizer | LogSqrt2Quantizer


class QuantLayer(nn.Module):
    """A convolution or linear layer with integer weights, a step a channel or one in all, and a quantizer on its input.

    The layer goes through states: float; learning, with soft rounding; frozen, when its weight is
    step * (integers - zero_point); and perhaps learning once more, with these integers or moving them too.
    """

    step: Tensor  # (channels,), or (1,) for all of the weight
    zero_point: Tensor  # of that shape
    integers: Tensor  # uint8, the shape of the weight

    def __init__(
        self,
        layer: nn.Module,
        weight_bits: int,
        input_quantizer: UniformQuantizer,
        *,
        symmetric: bool,
        per_tensor: bool,
    ) -> None:
        super().__init__()
        self.layer, self.weight_bits, self.input_quantizer = layer, weight_bits, input_quantizer
        self._stride = take_stride(layer)
        if layer.bias is None:  # learning and the reparameterisation of norms need one
            layer.bias = nn.Parameter(torch.zeros(len(self.weight)), requires_grad=False)
        self.symmetric, self.per_tensor = symmetric, per_tensor
        steps = 1 if per_tensor else len(self.weight)
        self.register_buffer("step", torch.ones(steps))
        self.register_buffer("zero_point", torch.zeros(steps))
        self.register_buffer("integers", torch.zeros(self.weight.shape, dtype=torch.uint8), persistent=False)
        self.frozen = False
        self._learning: LearnedStep | None = None
        self._v: nn.Parameter | None = None  # rounding variable
        self._u: nn.Parameter | None = None  # integers that move

    @property
    def weight(self) -> Tensor:
        """The weight that the layer computes with: float, or on the integer grid once it is frozen."""
        weight = self.layer.weight
        assert isinstance(weight, Tensor)
        return weight

    @property
    def qmax(self) -> int:
        """Highest level; the lowest is 0."""
        return int(2**self.weight_bits - 1)

    def _per_channel(self, parameter: Tensor) -> Tensor:
        return parameter.view(-1, *[1] * (self.weight.dim() - 1))

    def search_grid(self, how: Ranges) -> None:
        """Search the grid of the float weight."""
        search, axis = search_centred if self.symmetric else search_asymmetric, None if self.per_tensor else 0
        step, zero_point = search(self.weight, self.weight_bits, axis, how)
        self.step, self.zero_point = step.view(-1), zero_point.view(-1)

    def nearest(self) -> Tensor:
        """Integers of the float weight, each rounded to nearest."""
        ratio = torch.round(self.weight / self._per_channel(self.step)) + self._per_channel(self.zero_point)
        return ratio.clamp(0, self.qmax).to(torch.uint8)

    def freeze(self, integers: Tensor) -> None:
        """Compute with integers from now on."""
        self.integers, self.frozen, self._learning, self._v, self._u = integers, True, None, None, None
        levels = integers.to(self.step.dtype) - self._per_channel(self.zero_point)
        self.layer.weight = nn.Parameter(levels * self._per_channel(self.step), requires_grad=False)

    def learn(self, how: Steps) -> tuple[nn.Parameter, nn.Parameter]:
        """Begin to learn step and bias by the parameters returned."""
        assert isinstance(self.layer.bias, Tensor)
        self._learning, self._bias = LearnedStep(self.step, how), nn.Parameter(self.layer.bias.clone())
        return self._learning.value, self._bias

    def learn_rounding(self) -> nn.Parameter:
        """Round softly, by the variable v that is returned.

        v starts where h(v) is the fraction of w / step, so that the soft weight is the float weight, clipped.
        """
        ratio = self.weight / self._per_channel(self.step)
        base = ratio.floor()
        lowest, highest = -1 - self._per_channel(self.zero_point), self.qmax - self._per_channel(self.zero_point)
        self._base = base.clamp(lowest, highest).to(torch.int8 if self.weight_bits < 8 else torch.int16)
        self._v = nn.Parameter(-torch.log((ZETA - GAMMA) / (ratio - base - GAMMA) - 1))
        self.beta, self.lam = torch.tensor(2.0, device=ratio.device), torch.tensor(0.0, device=ratio.device)
        return self._v

    def learn_integers(self) -> nn.Parameter:
        """Move the integers of a frozen layer by the variable returned: these numbers, rounded straight through."""
        self._u = nn.Parameter(self.integers - self._per_channel(self.zero_point))
        return self._u

    def harden(self) -> float:
        """End learning: up where v >= 0, or the integers as they moved. Returns the share that differs from nearest.

        Nearest to the weight that it computed with before, which are the integers themselves if that was frozen.
        """
        assert self._learning is not None
        integers, nearest = self.integers, self.nearest()
        if self._v is not None:
            levels = self._base + (self._v.detach() >= 0).to(torch.int16) + self._per_channel(self.zero_point)
            integers = levels.clamp(0, self.qmax).to(torch.uint8)
        if self._u is not None:
            levels = torch.round(self._u.detach()) + self._per_channel(self.zero_point)
            integers = levels.clamp(0, self.qmax).to(torch.uint8)
        self.step = self._learning().detach()
        self.layer.bias = nn.Parameter(self._bias.detach(), requires_grad=False)
        del self._bias
        self.freeze(integers)
        return float((integers != nearest).float().mean())

    def _learned_weight(self, step: Tensor) -> Tensor:
        zero_point = self.zero_point.expand(len(self.weight))
        if self._u is not None:
            levels: Tensor = fake_quant(self._u, torch.ones_like(zero_point), zero_point, 0, self.qmax, 0)
            return self._per_channel(step) * levels
        if self._v is None:
            return self._per_channel(step) * (self.integers - self._per_channel(self.zero_point))
        step = step.expand(len(zero_point))
        weight: Tensor = soft_round(self._v, self._base, step, zero_point, 0, self.qmax, self.beta, self.lam)
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """The layer on the quantized input."""
        if self._stride != (1, 1):
            x = x[:, :, :: self._stride[0], :: self._stride[1]]
        x = self.input_quantizer(x)
        if self._learning is None:
            output: Tensor = self.layer(x)
            return output
        learned = {"weight": self._learned_weight(self._learning()), "bias": self._bias}
        adapted: Tensor = functional_call(self.layer, learned, (x,))
        return adapted
