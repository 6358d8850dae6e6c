"""Which errors of a unit's output matter to the classes that the network predicts: Fisher information.

To second order, an error d of the unit's output moves the predicted classes by a divergence of 1/2 d^T F d, with
F = J^T (diag(p) - p p^T) J, where J is the Jacobian of the logits and p the predicted probabilities (Martens 2014,
arXiv 1412.1193). F is the sum over classes y of p_y g_y g_y^T with g_y = J^T (e_y - p). Of each image the likeliest
classes are kept as they are: a factor of low rank. All classes together, over all images, give a diagonal, which also
stands for what the second order leaves out. A diagonal with low rank is what FIMA-Q (Wu et al. 2025) weights by.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from pipeline_lib.artifacts.fingerprints import seed_of


class FisherError:
    """Loss of a unit: 1/2 d^T (A A^T + diag) d of an image's error d, mean over images."""

    def __init__(self, diagonal: Tensor) -> None:
        """Diagonal of F, mean over images, of the shape of an image's output."""
        self.diagonal = diagonal

    def __call__(self, output: Tensor, target: Tensor, factors: Tensor) -> Tensor:
        """factors: (n, rank, ...), the columns of each image's A."""
        error = output - target
        along = (factors * error.unsqueeze(1)).flatten(2).sum(2)
        return 0.5 * (along.square().sum(1) + (self.diagonal * error.square()).flatten(1).sum(1)).mean()


def fisher_factors(
    network: nn.Module, unit: str, batches: Iterable[Tensor], rank: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Of the float network, batch by batch: factors (n, rank, ...), and squared gradients of random probes (n, ...).

    The probes are random signs, seeded by the unit, mixed to have the covariance diag(p) - p p^T: on average their
    squared gradient is the diagonal of F.
    """
    generator = torch.Generator().manual_seed(seed_of("fisher", 0, unit))
    outputs: list[Tensor] = []

    def cut(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        outputs[:] = [output.detach().requires_grad_()]
        return outputs[0].clone()  # what follows may work in place

    handle = network.get_submodule(unit).register_forward_hook(cut)
    try:
        for batch in batches:
            with torch.enable_grad():
                logits = network(batch)
            p = logits.detach().softmax(-1)
            signs = torch.randint(2, p.shape, generator=generator).mul_(2).sub_(1).to(p)
            top, classes = p.topk(min(rank, p.shape[1]))
            chosen = nn.functional.one_hot(classes, p.shape[1]) - p.unsqueeze(1)
            directions = [*(top.sqrt().unsqueeze(2) * chosen).unbind(1), signs * p.sqrt()]
            directions[-1] = directions[-1] - p * directions[-1].sum(1, keepdim=True)
            grads = [torch.autograd.grad(logits, outputs[0], u, retain_graph=True)[0] for u in directions]
            yield torch.stack(grads[:-1], 1), grads[-1].square()
    finally:
        handle.remove()
