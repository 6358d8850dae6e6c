"""Which errors of a unit's output matter to the classes that the network predicts: the loss of FIMA-Q (Wu et al. 2025).

The gradient of the divergence of the classes, at the output of a unit that alone is quantized, is to first order F d:
d is the error of that output, F its Fisher information. FIMA-Q takes F to be a diagonal and a matrix of low rank, made
from mean absolute gradients during the run. Ours has one, w, made before it: (w'|d|)^2 and w'd^2 of an error d, each
by its mean over the errors of the unit rounded to nearest, count as much.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pipeline_lib.quantization.ranges import SMALLEST

TEMPERATURE = 20.0  # of the classes, as in FIMA-Q's code


class FisherError:
    """Loss of a unit: 1 for errors such as it was made from."""

    def __init__(self, gradient: Tensor, outputs: Iterable[tuple[Tensor, Tensor]]) -> None:
        """`gradient`: as of `class_gradient`; `outputs`: batches of the quantized unit's and of the float one's."""
        self._weights = (gradient / gradient.mean().clamp(min=SMALLEST)).flatten()
        terms = torch.cat([self._terms(output, target) for output, target in outputs])
        self._first = terms.mean(0).clamp(min=SMALLEST)

    def _terms(self, output: Tensor, target: Tensor) -> Tensor:
        """(n, ...) -> (n, 2)."""
        error = (output - target).flatten(1)
        return torch.stack([(error.abs() @ self._weights).square(), error.square() @ self._weights], 1)

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean over the images, a scalar."""
        return (self._terms(output, target).mean(0) / self._first).mean()


def class_gradient(
    network: nn.Module, unit: str, images: Iterable[Tensor], outputs: Iterable[Tensor], classes: Tensor
) -> Tensor:
    """Mean over images of the absolute gradient of the divergence of the classes, of the shape of an image's output.

    `network` is float, but its unit writes `outputs`; `classes` (n, classes) are the logits that it has by itself.
    """
    written: list[Tensor] = []

    def substitute(_: nn.Module, __: tuple[Tensor, ...], ___: Tensor) -> Tensor:
        return written[0].clone()  # what follows may work in place

    handle = network.get_submodule(unit).register_forward_hook(substitute)
    gradients, begin = [], 0
    try:
        for batch, output in zip(images, outputs, strict=True):
            written[:] = [output.detach().requires_grad_()]
            with torch.enable_grad():
                logits = network(batch)
            expected = classes[begin : begin + len(batch)]
            # the gradient of the divergence at the logits, but for a constant
            shift = (logits.detach() / TEMPERATURE).softmax(-1) - (expected / TEMPERATURE).softmax(-1)
            gradients.append(torch.autograd.grad(logits, written[0], shift)[0].abs().sum(0))
            begin += len(batch)
    finally:
        handle.remove()
    return torch.stack(gradients).sum(0) / begin
