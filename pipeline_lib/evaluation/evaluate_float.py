"""Evaluation of a network as it was trained."""

from pathlib import Path
from typing import Any

import torch

from pipeline_lib.artifacts.files import atomic_directory
from pipeline_lib.artifacts.records import write_json
from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.metrics import accuracy_metrics
from pipeline_lib.evaluation.predict import METRICS, PREDICTIONS, predict, prediction_table
from pipeline_lib.models.card import read_card
from pipeline_lib.models.classifier import load_classifier
from pipeline_lib.models.device import place
from pipeline_lib.params.evaluate import Evaluate


def evaluate_float(
    classifier: Path, labelled: Path, class_names: list[str], params: Evaluate, device: torch.device, out: Path
) -> dict[str, Any]:
    """Write metrics.json and predictions.csv of the float network. Returns facts for the provenance.

    Args:
        classifier: folder of the network; its name is the model's.
        labelled: folder of labelled images.
        class_names: in the order of the network's outputs.
        params: which images, and how many at a time.
        device: where the network runs.
        out: folder to be written.

    Raises:
        InputError: the class list does not fit the network, or there are no labelled images.
    """
    loaded = load_classifier(classifier)
    classes = read_card(classifier).num_classes
    if classes != len(class_names):
        raise InputError(f"{classifier}: a network of {classes} classes, but `task.classes` lists {len(class_names)}")
    networks = {"float": place(loaded.network, device)}
    found = predict(networks, loaded.data_config, labelled, classes, params, device)
    likeliest = found.classes["float"]
    images = len(found.labels)
    with atomic_directory(out) as folder:
        metrics = accuracy_metrics(found.labels, likeliest, class_names, params.confidence)
        write_json(folder / METRICS, {"model": classifier.name, "images": images, "float": metrics})
        table = prediction_table(found.keys, found.labels, {"float": likeliest[:, 0]})
        table.to_csv(folder / PREDICTIONS, index=False)
    return {"device": str(device), "images": images}
