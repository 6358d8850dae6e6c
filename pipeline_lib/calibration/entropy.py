"""Patch-similarity entropy (PSAQ-ViT, Li et al. 2022): how varied the patches of an image are in an attention."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# Our reading: the bandwidth and the grid of the estimate, and that a patch is not compared with itself.
BANDWIDTH = 0.05
EDGE = 1.5  # the grid reaches from -EDGE to EDGE: ten bandwidths beyond what a cosine can be
POINTS = 121  # of the grid


def patch_entropy(tokens: Tensor) -> Tensor:
    """Differential entropy, in nats, of the cosines between patches: (n, patches, channels) of an attention -> (n,).

    H = -integral f log f, where f is a Gaussian kernel density estimate on a grid. Similarities are shared out
    to the two grid points beside them (linear binning, Wand 1994), so that the cost does not grow with the grid.
    """
    unit = F.normalize(tokens.float(), dim=-1)
    one, other = torch.triu_indices(tokens.shape[1], tokens.shape[1], offset=1, device=tokens.device)
    similarity = (unit @ unit.transpose(1, 2))[:, one, other]
    spacing = 2 * EDGE / (POINTS - 1)
    place = (similarity + EDGE) / spacing
    below = place.detach().floor()
    above_share = place - below
    shares = torch.zeros(len(tokens), POINTS, device=tokens.device)
    shares = shares.scatter_add(1, below.long(), 1 - above_share).scatter_add(1, below.long() + 1, above_share)
    grid = torch.linspace(-EDGE, EDGE, POINTS, device=tokens.device)
    kernel = torch.exp(-0.5 * ((grid[:, None] - grid) / BANDWIDTH) ** 2) / (BANDWIDTH * math.sqrt(2 * math.pi))
    density = shares @ kernel / len(one)
    return -torch.xlogy(density, density.clamp_min(1e-12)).sum(1) * spacing
