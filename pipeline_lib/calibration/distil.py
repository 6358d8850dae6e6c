"""Images optimised for a network, from noise: no generator and no prompt."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline_lib.artifacts.fingerprints import seed_of
from pipeline_lib.calibration.entropy import patch_entropy
from pipeline_lib.calibration.layers import LayerSummaries, attentions, batch_norms, summarised_layers
from pipeline_lib.calibration.sets import sample_row, write_set
from pipeline_lib.errors import InputError
from pipeline_lib.models.card import read_card
from pipeline_lib.models.classifier import load_classifier
from pipeline_lib.models.device import place
from pipeline_lib.models.preprocessing import Pixels
from pipeline_lib.params.distil import Distil
from pipeline_lib.progress import ProgressBar

SMOOTHNESS = 0.05  # weight of the total variation; our reading


def distil(classifier: Path, params: Distil, count: int, seed: int, device: torch.device, out: Path) -> dict[str, Any]:
    """Write `out` as `assemble` does: images.npy, uint8 (count, h, w, 3), dropped.npy (none), samples.csv.

    Image i is optimised for class i modulo the number of classes, from Gaussian noise of `seed`, together with the
    others of its batch. Returns facts for the provenance.

    Args:
        classifier: folder of the network.
        params: iterations, learning rate, batch size.
        count: of images.
        seed: of the noise.
        device: where the network runs.
        out: folder to be written.

    Raises:
        InputError: no classifier in its folder, or one with neither batch norm nor attention over all tokens.
    """
    loaded = load_classifier(classifier)
    num_classes = read_card(classifier).num_classes
    network = place(loaded.network, device)
    if not batch_norms(network) and not attentions(network):
        raise InputError(
            f"{classifier}: has neither batch norm nor attention over all tokens, so there is nothing to distil from; "
            "leave it out of `axes.models`, or set `axes.distilled` to [] in params.yaml"
        )
    keys = [f"distilled-{i:06d}" for i in range(count)]
    labels = [i % num_classes for i in range(count)]
    batches: list[Pixels] = []
    losses: list[list[float]] = []
    steps = params.iterations * -(-count // params.batch_size)
    with (
        summarised_layers(network, statistics_distance, patch_entropy) as summaries,
        ProgressBar(f"distil {classifier.name}", steps) as bar,
    ):
        for start in range(0, count, params.batch_size):
            batch = slice(start, start + params.batch_size)
            noise = torch.stack([_noise(loaded.data_config["input_size"], seed, key) for key in keys[batch]])
            target = torch.tensor(labels[batch], device=device)
            pixels, loss = _optimise(network, summaries, noise.to(device), target, loaded.data_config, params, bar)
            batches.append(pixels)
            losses.append(loss)
    rows = [sample_row({"key": key, "classes": [label]}, "", {}) for key, label in zip(keys, labels, strict=True)]
    write_set(out, np.concatenate(batches), rows, [])
    return {"device": str(device), "images": count, "loss_before_and_after": losses}


def statistics_distance(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """How far the statistics of a batch norm's input are from the running ones (ZeroQ, Cai et al. 2020).

    (|mean - running mean|^2 + |std - running std|^2) / channels, so that wide layers weigh no more than others.
    """
    assert layer.running_mean is not None and layer.running_var is not None
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    std = (variance + layer.eps).sqrt()
    running_std = (layer.running_var + layer.eps).sqrt()
    return F.mse_loss(mean, layer.running_mean) + F.mse_loss(std, running_std)


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels: (n, channels, h, w) -> ()."""
    return images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()


def _loss(summaries: LayerSummaries, images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with the distance of batch statistics, or, without batch norm, less the entropy of patches."""
    cross_entropy = F.cross_entropy(logits, labels)
    if summaries.batch_norms:
        return cross_entropy + torch.stack([*summaries.batch_norms.values()]).sum()
    entropy = torch.stack([*summaries.attentions.values()]).mean()  # as in PSAQ-ViT
    return cross_entropy - entropy + SMOOTHNESS * total_variation(images)


def _optimise(
    network: nn.Module,
    summaries: LayerSummaries,
    noise: Tensor,
    labels: Tensor,
    data_config: dict[str, Any],
    params: Distil,
    bar: ProgressBar,
) -> tuple[Pixels, list[float]]:
    """Pixels of a batch, uint8 (n, h, w, 3), and the losses of the first and the last iteration."""
    mean = torch.tensor(data_config["mean"], device=noise.device).view(1, -1, 1, 1)
    std = torch.tensor(data_config["std"], device=noise.device).view(1, -1, 1, 1)
    lowest, highest = (0 - mean) / std, (1 - mean) / std
    images = noise.clamp(lowest, highest).contiguous(memory_format=torch.channels_last).requires_grad_()
    optimiser = torch.optim.Adam([images], lr=params.learning_rate)
    curve: list[Tensor] = []  # kept on the device: reading a loss would wait for the GPU
    for _ in range(params.iterations):
        loss = _loss(summaries, images, network(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            images.clamp_(lowest, highest)  # pixels that no image can have would distort the statistics
        curve.append(loss.detach())
        bar.advance(1)
    ends = [round(float(loss), 4) for loss in (curve[0], curve[-1])]
    pixels = ((images.detach() * std + mean) * 255).round().clamp(0, 255).byte()
    return pixels.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).cpu().numpy(), ends  # grey ones in three equal channels


def _noise(size: list[int], seed: int, key: str) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed_of("distil", seed, key)))
