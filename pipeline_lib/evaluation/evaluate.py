"""Running networks on the labelled images, once for all of a cell's networks."""

from collections.abc import Iterator
from dataclasses import dataclass
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
from pipeline_lib.evaluation.calibration_set import Facts, class_facts, named_accuracy, set_facts
from pipeline_lib.evaluation.features import look, split
from pipeline_lib.evaluation.flipped import flipped
from pipeline_lib.evaluation.gap import generalization_gap
from pipeline_lib.evaluation.histograms import histograms
from pipeline_lib.evaluation.labelled import labelled_images
from pipeline_lib.evaluation.metrics import Indices, summarise
from pipeline_lib.evaluation.networks import Networks, load_networks
from pipeline_lib.evaluation.sensitivity import sensitivity
from pipeline_lib.models.card import read_card
from pipeline_lib.models.classifier import load_classifier
from pipeline_lib.models.device import place
from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.models.preprocessing import Pixels, resize_and_crop
from pipeline_lib.params.evaluate import Evaluate
from pipeline_lib.quantization.quantize import BLOCKS, read_images

METRICS, PREDICTIONS, GAP = "metrics.json", "predictions.csv", "gap.csv"
COMPARED = 512  # labelled images that calibration images are held against
SENSITIVITY_IMAGES, HISTOGRAM_IMAGES = 32, 8  # of the preview: every layer costs a pass of the network
Batch = tuple[list[str], Pixels, Indices]


def batches(folder: Path, data_config: dict[str, Any], params: Evaluate) -> Iterator[Batch]:
    """Keys, uint8 images (n, h, w, 3) and labels of the chosen labelled images, resized and cropped."""
    transform, size = resize_and_crop(data_config), params.batch_size
    threshold = params.fraction * 2**63
    images = (sample for sample in labelled_images(folder) if seed_of("evaluate", 0, sample[0]) < threshold)
    while chunk := list(islice(images, size)):
        keys, pictures, labels = zip(*chunk, strict=True)
        yield list(keys), np.stack([transform(p) for p in pictures]), np.array(labels, np.int64)


def first_images(folder: Path, data_config: dict[str, Any], params: Evaluate) -> Pixels:
    """The first COMPARED of the chosen labelled images, or all if there are fewer."""
    some = islice(batches(folder, data_config, params), -(-COMPARED // params.batch_size))
    return np.concatenate([pixels for _, pixels, _ in some])[:COMPARED]


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
        _predictions(keys, labels, {"float": top5["float"][:, 0]}).to_csv(folder / PREDICTIONS, index=False)
    return {"device": str(device), "images": len(labels)}


@dataclass(frozen=True)
class Inputs:
    """What the evaluation of a cell reads."""

    quantized: Path
    float_evaluation: Path  # of the same network on the same images
    classifier: Path
    preview: Path  # some of the cell's calibration images
    labelled: Path


def evaluate_cell(
    cell: dict[str, str],
    inputs: Inputs,
    class_names: list[str],
    params: Evaluate,
    device: torch.device,
    out: Path,
) -> dict[str, Any]:
    """Write what there is to know of a cell. Returns facts for the provenance.

    Reconstructed, and rounded to nearest: metrics.json, predictions.csv. Reconstructed alone: gap.csv, sensitivity.csv,
    histograms.json, and flipped.npy with its rows in flipped.csv.

    Raises:
        InputError: the float network was evaluated on other images.
    """
    networks = load_networks(inputs.quantized, inputs.classifier, device)
    data_config = networks.data_config
    judged = {"reconstructed": networks.reconstructed, "nearest": networks.nearest}
    keys, labels, top5 = predict(judged, data_config, inputs.labelled, len(class_names), params, device)
    reference = pd.read_csv(inputs.float_evaluation / PREDICTIONS, dtype={"key": str})
    if reference["key"].tolist() != keys:
        raise InputError(
            f"{inputs.float_evaluation / PREDICTIONS}: of other images than {inputs.labelled}; run `dvc repro`"
        )
    float_top1 = reference["float"].to_numpy()
    metrics = {m: summarise(labels, t, class_names, params.confidence, float_top1) for m, t in top5.items()}
    predictions = _predictions(keys, labels, {"float": float_top1} | {m: t[:, 0] for m, t in top5.items()})
    seen, unseen = read_images(inputs.preview / "images.npy"), first_images(inputs.labelled, data_config, params)
    facts, by_class = _of_calibration(networks, inputs.preview, (unseen, labels[: len(unseen)]), params, device)
    units = pd.read_csv(inputs.quantized / BLOCKS)["unit"].tolist()
    compared = networks.reference, networks.reconstructed, units
    gap = generalization_gap(*compared, seen, unseen, Normaliser(data_config, device), params.batch_size)
    with atomic_directory(out) as folder:
        of_classes = {class_names[c]: values for c, values in by_class.items()}
        write_json(
            folder / METRICS,
            {**cell, "images": len(labels), **metrics, "calibration": facts, "calibration_per_class": of_classes},
        )
        predictions.to_csv(folder / PREDICTIONS, index=False)
        gap.to_csv(folder / GAP, index=False)
        _write_layers(folder, networks, seen, device)
        images = (image for _, pixels, _ in batches(inputs.labelled, data_config, params) for image in pixels)
        rows, pixels = flipped(predictions, images, class_names, data_config["input_size"][1:])
        rows.to_csv(folder / "flipped.csv", index=False)
        np.save(folder / "flipped.npy", pixels)
    return {"device": str(device), "images": len(labels)}


def _of_calibration(
    networks: Networks, preview: Path, labelled: tuple[Pixels, Indices], params: Evaluate, device: torch.device
) -> tuple[Facts, dict[int, Facts]]:
    """What the float network makes of the calibration images, in all and by class; `accuracy` is of the other one."""
    rows = pd.read_csv(preview / "samples.csv", keep_default_na=False, dtype={"classes": str})
    classes = [[int(c) for c in named.split()] for named in rows.loc[rows["kept"], "classes"]]
    normalise = Normaliser(networks.data_config, device)
    images, (others, labels) = read_images(preview / "images.npy"), labelled
    seen, compared = (look(networks.reference, split(x, params.batch_size), normalise) for x in (images, others))
    with torch.inference_mode():
        parts = [networks.reconstructed(normalise(x)).argmax(1).cpu().numpy() for x in split(images, params.batch_size)]
    facts = {**set_facts(seen, classes, compared), "accuracy": named_accuracy(np.concatenate(parts), classes)}
    return facts, class_facts(seen, classes, compared, labels)


def _write_layers(folder: Path, networks: Networks, images: Pixels, device: torch.device) -> None:
    batch = Normaliser(networks.data_config, device)(images[:SENSITIVITY_IMAGES])
    compared = networks.twin, networks.reconstructed, networks.layers
    sensitivity(*compared, [batch]).to_csv(folder / "sensitivity.csv", index=False)
    write_json(folder / "histograms.json", histograms(*compared, batch[:HISTOGRAM_IMAGES]))


def _predictions(keys: list[str], labels: Indices, predicted: dict[str, Indices]) -> pd.DataFrame:
    return pd.DataFrame({"key": keys, "label": labels, **predicted})
