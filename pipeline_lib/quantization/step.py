"""One iteration of block reconstruction.

It works on tensors of the device alone, and the host reads none of their values: so a GPU captures it once as a CUDA
graph and replays that, on batches that are put into the same tensors each time.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline_lib.fakequant import mix
from pipeline_lib.params.reconstruct import Method
from pipeline_lib.quantization.layers import QuantLayer
from pipeline_lib.quantization.losses import Loss
from pipeline_lib.quantization.quantizers import LearnableQuantizer, State

BETA_FIRST, BETA_LAST = 20.0, 2.0  # exponent of the rounding regulariser, which falls linearly
WINDOW = 500  # early stopping compares the last so many iterations with as many before
UNCAPTURED = 3  # iterations before a graph is captured: they create the state of the optimiser
CountIterations = Callable[[int], None]  # is told how many iterations were done, or on a GPU were queued


class BatchFeed(Protocol):
    """Where batches come from: quantized input, float input and target, made from what lies in the same tensors."""

    def load(self, iteration: int) -> None:
        """Fetch the batch of an iteration; called by the host."""

    def batch(self) -> Sequence[Tensor]:
        """The three tensors; the host must not read their values."""


def schedule(iterations: int, warmup: float, rounding_weight: float) -> Tensor:
    """Lambda and beta of the regulariser, and the factor of all rates but that of rounding: float32 (iterations, 3)."""
    i = torch.arange(iterations, dtype=torch.float64)
    first = int(warmup * iterations)  # iteration with the regulariser
    progress = ((i - first) / (iterations - first)).clamp(min=0)
    lam = torch.where(i >= first, rounding_weight, 0.0)
    beta = BETA_FIRST + (BETA_LAST - BETA_FIRST) * progress
    cosine = 0.5 * (1 + torch.cos(torch.pi * i / iterations))
    return torch.stack([lam, beta, cosine], 1).float()


class Step:
    """Call it once an iteration, after the feed has loaded a batch: all that is learned takes a step of Adam."""

    def __init__(
        self,
        unit: nn.Module,
        layers: Sequence[QuantLayer],
        activations: Sequence[LearnableQuantizer],
        feed: BatchFeed,
        method: Method,
        loss: Loss,
        seed: int,
    ) -> None:
        """Begin to learn: steps and biases, the rounding of float layers, and perhaps the integers of frozen layers.

        Args:
            unit: what is reconstructed.
            layers: of the unit, to be learned.
            activations: quantizers to be learned with them.
            feed: of batches.
            method: iterations, rates, regulariser.
            loss: of the unit's output and its target.
            seed: of the masks of values that stay float.
        """
        device, iterations = layers[0].step.device, method.iterations
        self.unit, self.feed, self.loss = unit, feed, loss
        self.iterations, self.device = iterations, device
        self.keep = 1 - method.drop  # probability that an input is the quantized one
        self.normalise = method.normalise_loss
        self.early_stop = method.early_stop
        self.regularised_from = int(method.warmup * iterations)
        self.schedule = schedule(iterations, method.warmup, method.rounding_weight).to(device)
        self.iteration = torch.zeros(1, dtype=torch.int64, device=device)
        self.first_loss = torch.ones((), device=device)
        # of the masks: one for each quantizer, and one for the input
        self.seeds = seed % (1 << 62) + torch.arange(len(activations) + 1, device=device)

        floating = [layer for layer in layers if layer.state is State.FLOAT]
        frozen = [layer for layer in layers if layer.state is State.FROZEN]
        roundings = [layer.learn_rounding() for layer in floating]
        steps_and_biases = [layer.learn(method.steps) for layer in layers]
        activation_steps = [quantizer.learn(method.steps, method.drop) for quantizer in activations]
        integers = [layer.learn_integers() for layer in frozen] if method.learning_rate_integer else []
        rates = (
            method.learning_rate_rounding,
            method.learning_rate_weight_step,
            method.learning_rate_activation_step,
            method.learning_rate_bias,
            method.learning_rate_integer,
        )
        self.learned = (
            roundings,
            [step for step, _ in steps_and_biases],
            activation_steps,
            [bias for _, bias in steps_and_biases],
            integers,
        )
        self.curve = torch.zeros(iterations, 2, device=device)  # loss, norm of the gradient
        self.optimiser = torch.optim.Adam(
            [
                {"params": learned, "lr": torch.tensor(rate, device=device)}
                for learned, rate in zip(self.learned, rates, strict=True)
            ],
            capturable=device.type == "cuda",
        )
        self.scheduled = torch.zeros(3, device=device)  # row of the schedule for this iteration
        lam, beta, self.cosine = self.scheduled.unbind()
        for layer in floating:
            layer.lam, layer.beta = lam, beta
        for quantizer, quantizer_seed in zip(activations, self.seeds, strict=False):
            quantizer.seed = quantizer_seed
        groups = zip(self.optimiser.param_groups, rates, strict=True)
        self.decayed = [(group["lr"], rate) for group, rate in groups][1:]  # all but that of rounding

    def __call__(self) -> None:
        """Do one iteration."""
        self.scheduled.copy_(self.schedule[self.iteration][0])
        for learning_rate, rate in self.decayed:
            learning_rate.copy_(rate * self.cosine)
        quantized_input, float_input, target = self.feed.batch()
        mixed = mix(quantized_input, float_input, self.keep, self.seeds[-1])
        loss = self.loss(self.unit(mixed), target)
        if self.normalise:
            self.first_loss.copy_(torch.where(self.iteration[0] == 0, loss.detach(), self.first_loss))
            loss = loss / self.first_loss
        self.optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for group in self.learned for p in group if p.grad is not None])
        self.curve.index_copy_(0, self.iteration, torch.stack([loss.detach(), norm]).unsqueeze(0))
        self.optimiser.step()
        self.seeds += len(self.seeds)
        self.iteration += 1

    def is_flat(self, done: int) -> bool:
        """Whether the mean loss of the last WINDOW iterations is hardly below that of the WINDOW before them.

        That is tested at the end of a window, once the regulariser has been there for two of them.
        """
        if not self.early_stop or done % WINDOW or done < self.regularised_from + 2 * WINDOW:
            return False
        before, last = self.curve[done - 2 * WINDOW : done, 0].view(2, WINDOW).mean(1).tolist()
        return bool(before - last < self.early_stop * before)


def run(step: Step, count: CountIterations) -> None:
    """Do all iterations, or fewer if the loss goes flat; a GPU replays them from a graph. `count` is told of each."""
    captured = step.device.type == "cuda" and step.iterations > UNCAPTURED
    eager = UNCAPTURED if captured else step.iterations
    stream = torch.cuda.Stream(step.device) if captured else None
    if stream is not None:
        stream.wait_stream(torch.cuda.current_stream(step.device))
    with torch.cuda.stream(stream):
        for i in range(eager):
            step.feed.load(i)
            step()
            count(1)
            if step.is_flat(i + 1):
                return
    if not captured:
        return
    torch.cuda.synchronize(step.device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for i in range(UNCAPTURED, step.iterations):
        step.feed.load(i)
        graph.replay()
        count(1)
        if step.is_flat(i + 1):
            return
