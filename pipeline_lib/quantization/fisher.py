"""Which errors of a unit's output matter to the classes that the network predicts: the loss of FIMA-Q (Wu et al. 2025).

Let d be the error of the output of a unit when that unit alone is quantized. The gradient of the divergence of the
classes at that output is F d to first order, where F is its Fisher information. FIMA-Q approximates F by a diagonal and
a matrix of low rank, from mean absolute gradients that it takes again and again. We take one such gradient w, before
reconstruction. The loss is the mean of two terms, (w'|d|)^2 and w'd^2, each divided by its mean over the errors of the
unit rounded to nearest.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pipeline_lib.quantization.ranges import SMALLEST

TEMPERATURE = 20.0  # of the softmax, as in FIMA-Q's code


class FisherError:
    """The loss of a unit; it is 1 for the errors that it was made from."""

    def __init__(self, gradient: Tensor, outputs: Iterable[tuple[Tensor, Tensor]]) -> None:
        """`gradient`: from `class_gradient`; `outputs`: batches of the quantized unit's outputs and the float one's."""
        self._weights = (gradient / gradient.mean().clamp(min=SMALLEST)).flatten()
        terms = torch.cat([self._terms(output, target) for output, target in outputs])
        self._terms_of_nearest = terms.mean(0).clamp(min=SMALLEST)

    def _terms(self, output: Tensor, target: Tensor) -> Tensor:
        """The two terms of each image: outputs (n, ...) -> (n, 2)."""
        error = (output - target).flatten(1)
        return torch.stack([(error.abs() @ self._weights).square(), error.square() @ self._weights], 1)

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar, the mean over the images of a batch, (n, ...)."""
        return (self._terms(output, target).mean(0) / self._terms_of_nearest).mean()


def class_gradient(
    network: nn.Module, unit: str, images: Iterable[Tensor], outputs: Iterable[Tensor], classes: Tensor
) -> Tensor:
    """Mean over images of the absolute gradient of the divergence of the classes, of the shape of an image's output.

    Args:
        network: float.
        unit: name of the module whose outputs are replaced.
        images: batches that the network is given.
        outputs: batches that the unit writes instead of its own outputs.
        classes: logits of the float network with its own outputs, (images, classes).
    """
    replacement: list[Tensor] = []

    def replace_output(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:  # noqa: ARG001 a hook's
        return replacement[0].clone()  # what follows may work in place

    handle = network.get_submodule(unit).register_forward_hook(replace_output)
    gradients = []
    begin = 0
    try:
        for batch, output in zip(images, outputs, strict=True):
            replacement[:] = [output.detach().requires_grad_()]
            with torch.enable_grad():
                logits = network(batch)
            expected = classes[begin : begin + len(batch)]
            # the gradient of the divergence at the logits, but for a constant
            at_logits = (logits.detach() / TEMPERATURE).softmax(-1) - (expected / TEMPERATURE).softmax(-1)
            (gradient,) = torch.autograd.grad(logits, replacement[0], at_logits)
            gradients.append(gradient.abs().sum(0))
            begin += len(batch)
    finally:
        handle.remove()
    return torch.stack(gradients).sum(0) / begin
