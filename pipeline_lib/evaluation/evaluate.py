"""Running networks on the labelled images, once for all of a cell's networks."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from pipeline_lib.artifacts.files import atomic_directory
from pipeline_lib.artifacts.fingerprints import seed_of
from pipeline_lib.artifacts.records import write_json
from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.gap import generalization_gap
from pipeline_lib.evaluation.labelled import labelled_images
from pipeline_lib.evaluation.metrics import Indices, summarise
from pipeline_lib.models.card import read_card
from pipeline_lib.models.classifier import load_classifier
from pipeline_lib.models.device import place
from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.models.preprocessing import Pixels, resize_and_crop
from pipeline_lib.params.evaluate import Evaluate
from pipeline_lib.quantization.attach import fold
from pipeline_lib.quantization.checkpoint import load_quantized
from pipeline_lib.quantization.quantize import BLOCKS, MODEL, NEAREST, read_images

METRICS, PREDICTIONS, GAP = "metrics.json", "predictions.csv", "gap.csv"
Batch = tuple[list[str], Pixels, Indices]


def batches(folder: Path, data_config: dict[str, Any], params: Evaluate) -> Iterator[Batch]:
    """Keys, uint8 images (n, h, w, 3) and labels of the chosen labelled images, resized and cropped."""
    transform, size = resize_and_crop(data_config), params.batch_size
    threshold = params.fraction * 2**63
    images = (sample for sample in labelled_images(folder) if seed_of("evaluate", 0, sample[0]) < threshold)
    while chunk := list(islice(images, size)):
        keys, pictures, labels = zip(*chunk, strict=True)
        yield list(keys), np.stack([transform(p) for p in pictures]), np.array(labels, np.int64)


@torch.inference_mode()
def predict(
    networks: dict[str, nn.Module],
    data_config: dict[str, Any],
    labelled: Path,
    classes: int,
    params: Evaluate,
    device: torch.device,
) -> tuple[list[str], Indices, dict[str, Indices]]:
    """Keys, labels (n,), and for each network its five likeliest classes (n, 5), from one reading of the images.

    Raises:
        InputError: a label is not one of the `classes`, or there is no image.
    """
    normalise = Normaliser(data_config, device)
    keys: list[str] = []
    labels: list[Indices] = []
    top5: dict[str, list[Indices]] = {name: [] for name in networks}
    for batch_keys, pixels, batch_labels in batches(labelled, data_config, params):
        x = normalise(pixels)
        keys += batch_keys
        if batch_labels.max() >= classes:
            raise InputError(f"{labelled}: label {batch_labels.max()}, but the network knows {classes} classes")
        labels.append(batch_labels)
        for name, network in networks.items():
            logits = network(x)
            top5[name].append(logits.topk(min(5, logits.shape[1])).indices.cpu().numpy())
    if not keys:
        raise InputError(f"{labelled}: no image chosen; raise `evaluate.fraction` in params.yaml")
    return keys, np.concatenate(labels), {name: np.concatenate(parts) for name, parts in top5.items()}


def evaluate_float(
    model: str,
    classifier: Path,
    labelled: Path,
    class_names: list[str],
    params: Evaluate,
    device: torch.device,
    out: Path,
) -> dict[str, Any]:
    """Write metrics.json and predictions.csv of the float network. Returns facts for the provenance.

    Raises:
        InputError: the class list does not fit the network, or there are no labelled images.
    """
    loaded, classes = load_classifier(classifier), read_card(classifier).num_classes
    if classes != len(class_names):
        raise InputError(f"{classifier}: a network of {classes} classes, but `task.classes` lists {len(class_names)}")
    network = place(loaded.network, device)
    keys, labels, top5 = predict({"float": network}, loaded.data_config, labelled, classes, params, device)
    with atomic_directory(out) as folder:
        summary = summarise(labels, top5["float"], class_names, params.confidence)
        write_json(folder / METRICS, {"model": model, "images": len(labels), "float": summary})
        _write_predictions(folder / PREDICTIONS, keys, labels, {"float": top5["float"][:, 0]})
    return {"device": str(device), "images": len(labels)}


def evaluate_cell(
    cell: dict[str, str],
    quantized: Path,
    float_evaluation: Path,
    classifier: Path,
    preview: Path,
    labelled: Path,
    class_names: list[str],
    params: Evaluate,
    device: torch.device,
    out: Path,
) -> dict[str, Any]:
    """Write metrics.json, predictions.csv and gap.csv of a cell: reconstructed, and rounded to nearest.

    Raises:
        InputError: the float network was evaluated on other images.
    """
    reconstructed = load_quantized(quantized, MODEL)
    data_config = reconstructed.data_config
    networks = {
        method: place(network, device)
        for method, network in (
            ("reconstructed", reconstructed.network),
            ("nearest", load_quantized(quantized, NEAREST).network),
        )
    }
    keys, labels, top5 = predict(networks, data_config, labelled, len(class_names), params, device)
    reference = pd.read_csv(float_evaluation / PREDICTIONS, dtype={"key": str})
    if reference["key"].tolist() != keys:
        raise InputError(f"{float_evaluation / PREDICTIONS}: of other images than {labelled}; run `dvc repro`")
    float_top1 = reference["float"].to_numpy()
    metrics = {m: summarise(labels, t, class_names, params.confidence, float_top1) for m, t in top5.items()}
    gap = _gap(networks["reconstructed"], quantized, classifier, preview, labelled, params, device)
    with atomic_directory(out) as folder:
        write_json(folder / METRICS, {**cell, "images": len(labels), **metrics})
        top1 = {method: indices[:, 0] for method, indices in top5.items()}
        _write_predictions(folder / PREDICTIONS, keys, labels, {"float": float_top1, **top1})
        gap.to_csv(folder / GAP, index=False)
    return {"device": str(device), "images": len(labels)}


def _gap(
    network: nn.Module,
    quantized: Path,
    classifier: Path,
    preview: Path,
    labelled: Path,
    params: Evaluate,
    device: torch.device,
) -> pd.DataFrame:
    loaded = load_classifier(classifier)
    fold(loaded.network, tuple(loaded.data_config["input_size"]))
    reference = place(loaded.network, device)
    units = pd.read_csv(quantized / BLOCKS)["unit"].tolist()
    normalise, size, seen = Normaliser(loaded.data_config, device), params.batch_size, read_images(preview)
    unseen = np.concatenate(
        [p for _, p, _ in islice(batches(labelled, loaded.data_config, params), -(-len(seen) // size))]
    )
    return generalization_gap(reference, network, units, seen, unseen, normalise, size)


def _write_predictions(path: Path, keys: list[str], labels: Indices, predicted: dict[str, Indices]) -> None:
    pd.DataFrame({"key": keys, "label": labels, **predicted}).to_csv(path, index=False)
