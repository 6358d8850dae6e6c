"""One iteration of block reconstruction, as a function of tensors on the device alone.

Nothing in it looks at a value on the host, so a GPU captures it once as a CUDA graph and replays it, on
batches that are put into one place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline_lib.fakequant import mix
from pipeline_lib.params.reconstruct import Method
from pipeline_lib.quantization.caches import Cache
from pipeline_lib.quantization.quantizers import QuantLayer, UniformQuantizer
from pipeline_lib.quantization.ranges import FAINT, SMALLEST

BETA_FIRST, BETA_LAST = 20.0, 2.0  # exponent of the rounding regulariser, linear in between
Advance = Callable[[int], None]  # counts iterations that were done, or on a GPU sent off
Loss = Callable[[Tensor, Tensor], Tensor]  # of a unit's output and the float unit's

WINDOW = 500  # iterations that early stopping compares
EAGER = 3  # iterations before the capture, which make the optimiser's state


@dataclass(frozen=True)
class UnitData:
    """What a unit sees: its input behind the quantized prefix and behind the float one, and its float output."""

    quantized_input: Cache
    float_input: Cache
    target: Cache

    @property
    def caches(self) -> tuple[Cache, Cache, Cache]:
        """All of them."""
        return self.quantized_input, self.float_input, self.target

    def split(self, held_out: int) -> tuple["UnitData", "UnitData"]:
        """All but the last `held_out` images, and those."""
        kept, held = zip(*(cache.split(held_out) for cache in self.caches), strict=True)
        return UnitData(*kept), UnitData(*held)

    def first(self, count: int) -> "UnitData":
        """The first images."""
        return UnitData(*(cache.first(count) for cache in self.caches))


class Source(Protocol):
    """Where batches come from: quantized input, float input and target, always in the same tensors or made of those."""

    def load(self, iteration: int) -> None:
        """Fetch the batch of an iteration; called by the host."""

    def batch(self) -> Sequence[Tensor]:
        """The three tensors, without a look at a value on the host."""


def reconstruction_error(output: Tensor, target: Tensor) -> Tensor:
    """Squared error, summed over dimension 1 (channels of a CNN, tokens of a ViT), mean over the rest."""
    return (output - target).square().sum(1).mean()


class RelativeError:
    """Squared error of each image by the power of its float output: large outputs count no more than others."""

    def __init__(self, median: Tensor) -> None:
        """Median power of the images, a scalar: an image that has it counts as in `reconstruction_error`."""
        self.median = median

    @staticmethod
    def power(target: Tensor) -> Tensor:
        """Mean square of each image, (n, ...) -> (n,)."""
        return target.square().mean(tuple(range(1, target.dim())))

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """As `reconstruction_error`, weighted."""
        weights = self.median / (self.power(target) + FAINT * self.median).clamp(min=SMALLEST)
        error = (output - target).square().sum(1)
        return (error * weights.view(-1, *[1] * (error.dim() - 1))).mean()


def class_divergence(output: Tensor, target: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the classes that logits predict from those that the float network predicts."""
    return nn.functional.kl_div(output.log_softmax(-1), target.log_softmax(-1), reduction="batchmean", log_target=True)


def schedule(iterations: int, warmup: float, rounding_weight: float) -> Tensor:
    """A row an iteration: lambda and beta of the regulariser, and the cosine of all rates but that of rounding."""
    i = torch.arange(iterations, dtype=torch.float64)
    first = int(warmup * iterations)  # iteration that has the regulariser
    progress = ((i - first) / (iterations - first)).clamp(min=0)
    lam = torch.where(i >= first, rounding_weight, 0.0)
    beta = BETA_FIRST + (BETA_LAST - BETA_FIRST) * progress
    cosine = 0.5 * (1 + torch.cos(torch.pi * i / iterations))
    return torch.stack([lam, beta, cosine], 1).float()


class Step:
    """Call it once an iteration, on the batch that `source` has loaded: all that is learned takes a step of Adam."""

    def __init__(
        self,
        unit: nn.Module,
        layers: Sequence[QuantLayer],
        activations: Sequence[UniformQuantizer],
        source: Source,
        method: Method,
        loss: Loss,
        seed: int,
    ) -> None:
        """Begin to learn: steps and biases are parameters from now on, and layers that are float yet round softly."""
        device, iterations = layers[0].step.device, method.iterations
        self.unit, self.source, self.loss, self.iterations, self.device = unit, source, loss, iterations, device
        self.keep, self.normalise = 1 - method.drop, method.normalise_loss
        self.early_stop, self.regularised_from = method.early_stop, int(method.warmup * iterations)
        self.schedule = schedule(iterations, method.warmup, method.rounding_weight).to(device)
        self.iteration = torch.zeros(1, dtype=torch.int64, device=device)
        self.scale = torch.ones((), device=device)
        self.seeds = seed % (1 << 62) + torch.arange(len(activations) + 1, device=device)

        floating = [layer for layer in layers if not layer.frozen]
        roundings = [layer.learn_rounding() for layer in floating]
        moving = [layer for layer in layers if layer.frozen] if method.learning_rate_integer else []
        weight_steps, biases = zip(*(layer.learn(method.steps) for layer in layers), strict=True)
        rates = (
            method.learning_rate_rounding,
            method.learning_rate_weight_step,
            method.learning_rate_activation_step,
            method.learning_rate_bias,
            method.learning_rate_integer,
        )
        activation_steps = [quantizer.learn(method.steps, method.drop) for quantizer in activations]
        self.learned = (roundings, weight_steps, activation_steps, biases, [layer.learn_integers() for layer in moving])
        self.curve = torch.zeros(iterations, 2, device=device)  # loss, norm of the gradient
        self.optimiser = torch.optim.Adam(
            [
                {"params": learned, "lr": torch.tensor(rate, device=device)}
                for learned, rate in zip(self.learned, rates, strict=True)
            ],
            capturable=device.type == "cuda",
        )
        self.now = torch.zeros(3, device=device)  # the schedule's row
        lam, beta, self.cosine = self.now.unbind()
        for layer in floating:
            layer.lam, layer.beta = lam, beta
        for quantizer, quantizer_seed in zip(activations, self.seeds, strict=False):
            quantizer.seed = quantizer_seed
        self.decayed = [(group["lr"], rate) for group, rate in zip(self.optimiser.param_groups, rates, strict=True)][1:]

    def __call__(self) -> None:
        """One iteration."""
        self.now.copy_(self.schedule[self.iteration][0])
        for learning_rate, rate in self.decayed:
            learning_rate.copy_(rate * self.cosine)
        quantized_input, float_input, target = self.source.batch()
        mixed = mix(quantized_input, float_input, self.keep, self.seeds[-1])
        loss = self.loss(self.unit(mixed), target)
        if self.normalise:
            self.scale.copy_(torch.where(self.iteration[0] == 0, loss.detach(), self.scale))
            loss = loss / self.scale
        self.optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for group in self.learned for p in group if p.grad is not None])
        self.curve.index_copy_(0, self.iteration, torch.stack([loss.detach(), norm]).unsqueeze(0))
        self.optimiser.step()
        self.seeds += len(self.seeds)
        self.iteration += 1

    def is_flat(self, done: int) -> bool:
        """Whether the mean loss of the last WINDOW iterations is hardly below that of the WINDOW before them.

        Looked at once a window, and once the regulariser has had two of them.
        """
        if not self.early_stop or done % WINDOW or done < self.regularised_from + 2 * WINDOW:
            return False
        before, last = self.curve[done - 2 * WINDOW : done, 0].view(2, WINDOW).mean(1).tolist()
        return bool(before - last < self.early_stop * before)


def run(step: Step, advance: Advance) -> None:
    """All iterations, or fewer if the loss goes flat; on a GPU replayed from a graph. `advance` counts them."""
    captured = step.device.type == "cuda" and step.iterations > EAGER
    eager = EAGER if captured else step.iterations
    stream = torch.cuda.Stream(step.device) if captured else None
    if stream is not None:
        stream.wait_stream(torch.cuda.current_stream(step.device))
    with torch.cuda.stream(stream):
        for i in range(eager):
            step.source.load(i)
            step()
            advance(1)
            if step.is_flat(i + 1):
                return
    if not captured:
        return
    torch.cuda.synchronize(step.device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for i in range(EAGER, step.iterations):
        step.source.load(i)
        graph.replay()
        advance(1)
        if step.is_flat(i + 1):
            return
