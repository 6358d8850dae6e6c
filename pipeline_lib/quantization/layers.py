"""Layers that quantize their weight and what they read."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pipeline_lib.fakequant import fake_quant, soft_round
from pipeline_lib.fakequant.reference import GAMMA, ZETA
from pipeline_lib.params.reconstruct import Ranges, Steps
from pipeline_lib.quantization.quantizers import LearnedStep, State, UniformQuantizer
from pipeline_lib.quantization.ranges import search_asymmetric, search_centred

NARROW = 8  # input channels; below it, oneDNN errs in the gradient of a strided 1x1 convolution's weight


def take_stride(layer: nn.Module) -> tuple[int, int]:
    """Take the stride from a narrow 1x1 convolution and return it; the caller must skip pixels of the input instead.

    That computes the same. It avoids a fault of oneDNN, which computes PyTorch's convolutions on a CPU: for images in
    channels_last, the gradient of such a weight is written beyond its buffer (issue 6035 of oneDNN, found with AVX2).
    Other layers keep their stride, and 1, 1 is returned.
    """
    if not isinstance(layer, nn.Conv2d) or layer.in_channels >= NARROW:
        return 1, 1
    if layer.kernel_size != (1, 1) or layer.padding not in ((0, 0), "valid"):
        return 1, 1
    vertical, horizontal = layer.stride
    layer.stride = 1, 1
    return vertical, horizontal


class QuantLayer(nn.Module):
    """A convolution or linear layer with integer weights and a quantizer on its input.

    Its state is first FLOAT; then LEARNING, with soft rounding; then FROZEN, when its weight is step * (integers -
    zero_point); and perhaps LEARNING once more, when steps and biases are tuned and the integers may move too.

    Args:
        layer: the float layer.
        weight_bits: of its integers.
        input_quantizer: of what it reads; layers that read the same tensor share it.
        symmetric: whether the zero point of the weight is in the middle of its levels.
        per_tensor: whether the whole weight has one step, instead of one for each output channel.
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
        self.state = State.FLOAT
        self._learning: LearnedStep | None = None
        self._rounding: nn.Parameter | None = None  # v of soft rounding
        self._moving_integers: nn.Parameter | None = None  # less the zero point

    @property
    def weight(self) -> Tensor:
        """The weight that the layer computes with: float, or on the integer grid once it is frozen."""
        weight = self.layer.weight
        assert isinstance(weight, Tensor)
        return weight

    @property
    def qmax(self) -> int:
        """The highest level of the weight; the lowest is 0."""
        return int(2**self.weight_bits - 1)

    def _per_channel(self, parameter: Tensor) -> Tensor:
        return parameter.view(-1, *[1] * (self.weight.dim() - 1))

    def search_grid(self, ranges: Ranges) -> None:
        """Search the grid of the float weight."""
        search = search_centred if self.symmetric else search_asymmetric
        step, zero_point = search(self.weight, self.weight_bits, None if self.per_tensor else 0, ranges)
        self.step, self.zero_point = step.view(-1), zero_point.view(-1)

    def nearest(self) -> Tensor:
        """The integers of the float weight rounded to nearest, uint8, in its shape."""
        levels = torch.round(self.weight / self._per_channel(self.step)) + self._per_channel(self.zero_point)
        return levels.clamp(0, self.qmax).to(torch.uint8)

    def freeze(self, integers: Tensor) -> None:
        """Compute with these integers from now on.

        They and the weight keep the memory layout that the layer has. In another layout the same values may be added in
        another order, and a run that continues after a kill would differ from one without in the last digits.
        """
        levels = integers.to(self.step.dtype) - self._per_channel(self.zero_point)
        weight = torch.empty_like(self.weight).copy_(levels * self._per_channel(self.step))
        self.layer.weight = nn.Parameter(weight, requires_grad=False)
        self.integers = torch.empty_like(self.integers).copy_(integers)
        self.state = State.FROZEN
        self._learning = self._rounding = self._moving_integers = None

    def thaw(self, weight: Tensor) -> None:
        """Compute with this float weight again."""
        self.layer.weight, self.state = weight, State.FLOAT

    def learn(self, steps: Steps) -> tuple[nn.Parameter, nn.Parameter]:
        """Begin to learn step and bias; returns the parameters to learn."""
        assert isinstance(self.layer.bias, Tensor)
        self._learning = LearnedStep(self.step, steps)
        self._bias = nn.Parameter(self.layer.bias.clone())
        self.state = State.LEARNING
        return self._learning.value, self._bias

    def learn_rounding(self) -> nn.Parameter:
        """Begin to round softly; returns the variable v to learn, in the shape of the weight.

        At first h(v) is the fraction of weight / step, so that the soft weight is the float weight, clipped.
        """
        ratio = self.weight / self._per_channel(self.step)
        base = ratio.floor()
        lowest, highest = -1 - self._per_channel(self.zero_point), self.qmax - self._per_channel(self.zero_point)
        self._base = base.clamp(lowest, highest).to(torch.int8 if self.weight_bits < 8 else torch.int16)
        self._rounding = nn.Parameter(-torch.log((ZETA - GAMMA) / (ratio - base - GAMMA) - 1))
        self.beta = torch.tensor(2.0, device=ratio.device)
        self.lam = torch.tensor(0.0, device=ratio.device)
        return self._rounding

    def learn_integers(self) -> nn.Parameter:
        """Begin to move the integers of a frozen layer; returns the variable to learn.

        It starts as the integers less the zero point; it is rounded, and its gradient passes straight through.
        """
        self._moving_integers = nn.Parameter(self.integers - self._per_channel(self.zero_point))
        return self._moving_integers

    def harden(self) -> float:
        """End learning and freeze: weights are rounded up where v >= 0, moving integers to the nearest.

        Returns the share of integers that differ from those nearest to the weight before learning. In a layer that was
        frozen then, these are its integers.
        """
        assert self._learning is not None
        integers, nearest = self.integers, self.nearest()
        if self._rounding is not None:
            levels = self._base + (self._rounding.detach() >= 0).to(torch.int16) + self._per_channel(self.zero_point)
            integers = levels.clamp(0, self.qmax).to(torch.uint8)
        if self._moving_integers is not None:
            levels = torch.round(self._moving_integers.detach()) + self._per_channel(self.zero_point)
            integers = levels.clamp(0, self.qmax).to(torch.uint8)
        self.step = self._learning().detach()
        self.layer.bias = nn.Parameter(self._bias.detach(), requires_grad=False)
        del self._bias
        self.freeze(integers)
        return float((integers != nearest).float().mean())

    def _learned_weight(self, step: Tensor) -> Tensor:
        zero_point = self.zero_point.expand(len(self.weight))
        if self._moving_integers is not None:
            ones = torch.ones_like(zero_point)
            levels: Tensor = fake_quant(self._moving_integers, ones, zero_point, 0, self.qmax, 0)
            return self._per_channel(step) * levels
        if self._rounding is None:
            return self._per_channel(step) * (self.integers - self._per_channel(self.zero_point))
        step = step.expand(len(zero_point))
        weight: Tensor = soft_round(self._rounding, self._base, step, zero_point, 0, self.qmax, self.beta, self.lam)
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """Quantize the input, and apply the layer to it."""
        if self._stride != (1, 1):
            x = x[:, :, :: self._stride[0], :: self._stride[1]]
        x = self.input_quantizer(x)
        if self.state is not State.LEARNING:
            output: Tensor = self.layer(x)
            return output
        assert self._learning is not None
        learned = {"weight": self._learned_weight(self._learning()), "bias": self._bias}
        adapted: Tensor = functional_call(self.layer, learned, (x,))
        return adapted


def quant_layers(network: nn.Module) -> dict[str, QuantLayer]:
    """Quantized layers by name, in order of definition."""
    return {name: module for name, module in network.named_modules() if isinstance(module, QuantLayer)}
