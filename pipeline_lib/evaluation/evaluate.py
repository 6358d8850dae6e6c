"""Evaluation of a cell: its reconstructed network, and the one rounded to nearest, against the float one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline_lib.artifacts.files import atomic_directory
from pipeline_lib.artifacts.records import write_json
from pipeline_lib.artifacts.tables import read_table
from pipeline_lib.calibration.sets import CalibrationSet, read_set
from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.calibration_set import Facts, class_facts, named_accuracy, set_facts
from pipeline_lib.evaluation.features import Responses, responses
from pipeline_lib.evaluation.flipped import flipped
from pipeline_lib.evaluation.gap import generalization_gap
from pipeline_lib.evaluation.histograms import histograms
from pipeline_lib.evaluation.labelled import labelled_set, sample
from pipeline_lib.evaluation.metrics import accuracy_metrics
from pipeline_lib.evaluation.networks import Networks, load_networks
from pipeline_lib.evaluation.predict import METRICS, PREDICTIONS, labelled_pixels, predict, prediction_table
from pipeline_lib.evaluation.sensitivity import sensitivity
from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.models.prediction import Indices, in_batches, predicted_classes
from pipeline_lib.models.preprocessing import Pixels
from pipeline_lib.params.evaluate import Evaluate
from pipeline_lib.prompts.vocabulary import ClassName
from pipeline_lib.quantization.quantize import BLOCKS

GAP = "gap.csv"
SENSITIVITY_IMAGES, HISTOGRAM_IMAGES = 32, 8  # of the preview: every layer costs a pass of the network


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
    classes: Sequence[ClassName],
    params: Evaluate,
    device: torch.device,
    out: Path,
) -> dict[str, Any]:
    """Write all that is measured of a cell. Returns facts for the provenance.

    metrics.json and predictions.csv are of the reconstructed network and of the one rounded to nearest. gap.csv,
    sensitivity.csv, histograms.json and flipped.csv, with the images of its rows in flipped.npy, are of the former.

    Args:
        cell: its source, model and precision.
        inputs: folders that are read.
        classes: in the order of the network's outputs.
        params: which labelled images, and how many at a time.
        device: where the networks run.
        out: folder to be written.

    Raises:
        InputError: the float network was evaluated on other images than these.
    """
    networks = load_networks(inputs.quantized, inputs.classifier, device)
    data_config = networks.data_config
    quantized = {"reconstructed": networks.reconstructed, "nearest": networks.nearest}
    images = labelled_set(inputs.labelled, classes).chosen(params.fraction)
    found = predict(quantized, data_config, images, params.batch_size, device)
    reference = read_table(inputs.float_evaluation / PREDICTIONS, ["key", "label", "float"], ["key"])
    if reference["key"].tolist() != found.keys:
        raise InputError(
            f"{inputs.float_evaluation / PREDICTIONS}: of other images than {inputs.labelled}; run `dvc repro`"
        )
    float_top1 = reference["float"].to_numpy(np.int64)
    metrics = {
        name: accuracy_metrics(found.labels, likeliest, params.confidence, float_top1)
        for name, likeliest in found.classes.items()
    }
    top1 = {name: likeliest[:, 0] for name, likeliest in found.classes.items()}
    predictions = prediction_table(found.keys, found.labels, {"float": float_top1, **top1})
    calibration = read_set(inputs.preview)
    compared = sample(images, params.compared)
    unseen = np.stack(list(labelled_pixels([images[position] for position in compared], data_config)))
    labels = found.labels[compared]
    facts, facts_of_classes = _calibration_facts(networks, calibration, (unseen, labels), params, device)
    units = read_table(inputs.quantized / BLOCKS, ["unit"], ["unit"])["unit"].tolist()
    gap = generalization_gap(
        networks.reference,
        networks.reconstructed,
        units,
        calibration.images,
        unseen,
        Normaliser(data_config, device),
        params.batch_size,
    )
    with atomic_directory(out) as folder:
        write_json(
            folder / METRICS,
            {
                **cell,
                "images": len(found.labels),
                **metrics,
                "calibration": facts,
                "calibration_per_class": {str(c): values for c, values in facts_of_classes.items()},
            },
        )
        predictions.to_csv(folder / PREDICTIONS, index=False)
        gap.to_csv(folder / GAP, index=False)
        _write_layers(folder, networks, calibration.images, device)
        rows, pixels = flipped(predictions, images, data_config)
        rows.to_csv(folder / "flipped.csv", index=False)
        np.save(folder / "flipped.npy", pixels)
    return {"device": str(device), "images": len(found.labels)}


def _calibration_facts(
    networks: Networks,
    calibration: CalibrationSet,
    labelled: tuple[Pixels, Indices],
    params: Evaluate,
    device: torch.device,
) -> tuple[Facts, dict[int, Facts]]:
    """Facts of the calibration images, of all and by class, measured with the float network.

    `accuracy` alone is the reconstructed network's. `labelled`: images, uint8 (n, h, w, 3), and their labels, (n,).
    """
    normalise = Normaliser(networks.data_config, device)
    labelled_images, labels = labelled

    def float_responses(pixels: Pixels) -> Responses:
        return responses(networks.reference, in_batches(pixels, params.batch_size), normalise)

    to_calibration, to_labelled = float_responses(calibration.images), float_responses(labelled_images)
    predicted = predicted_classes(networks.reconstructed, calibration.images, normalise, params.batch_size)
    facts = {
        **set_facts(to_calibration, calibration.classes, to_labelled),
        "accuracy": named_accuracy(predicted, calibration.classes),
    }
    return facts, class_facts(to_calibration, calibration.classes, to_labelled, labels)


def _write_layers(folder: Path, networks: Networks, images: Pixels, device: torch.device) -> None:
    batch = Normaliser(networks.data_config, device)(images[:SENSITIVITY_IMAGES])
    twin, reconstructed, layers = networks.twin, networks.reconstructed, networks.layers
    sensitivity(twin, reconstructed, layers, [batch]).to_csv(folder / "sensitivity.csv", index=False)
    write_json(folder / "histograms.json", histograms(twin, reconstructed, layers, batch[:HISTOGRAM_IMAGES]))
