"""Evaluation of a network as it was trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline_lib.artifacts.files import atomic_directory
from pipeline_lib.artifacts.records import write_json
from pipeline_lib.evaluation.labelled import labelled_set
from pipeline_lib.evaluation.metrics import accuracy_metrics, doubt_of_guessing
from pipeline_lib.evaluation.predict import METRICS, PREDICTIONS, predict, prediction_table
from pipeline_lib.models.card import check_class_count
from pipeline_lib.models.classifier import load_classifier
from pipeline_lib.models.device import place
from pipeline_lib.params.evaluate import Evaluate
from pipeline_lib.progress import notice
from pipeline_lib.prompts.vocabulary import ClassName


def evaluate_float(
    classifier: Path, labelled: Path, classes: Sequence[ClassName], params: Evaluate, device: torch.device, out: Path
) -> dict[str, Any]:
    """Write metrics.json and predictions.csv of the float network. Returns facts for the provenance.

    Args:
        classifier: folder of the network; its name is the model's.
        labelled: folder of labelled images.
        classes: in the order of the network's outputs.
        params: which images, and how many at a time.
        device: where the network runs.
        out: folder to be written.

    Raises:
        InputError: the class list does not fit the network, or there are no labelled images.
    """
    loaded = load_classifier(classifier)
    check_class_count(classifier, len(classes))
    labelled_images = labelled_set(labelled, classes)
    notice(f"{labelled}: {labelled_images.summary}")
    images = labelled_images.chosen(params.fraction)
    networks = {"float": place(loaded.network, device)}
    found = predict(networks, loaded.data_config, images, params.batch_size, device)
    metrics = accuracy_metrics(found.labels, found.classes["float"], params.confidence)
    if doubt := doubt_of_guessing(metrics, len(classes)):
        notice(f"{classifier.name}: {metrics['top1']}% of {len(images)} images are right{doubt}")
    with atomic_directory(out) as folder:
        names = [entry.name for entry in classes]
        facts = {"model": classifier.name, "images": len(images), "classes": names, "float": metrics}
        write_json(folder / METRICS, facts)
        table = prediction_table(found.keys, found.labels, {"float": found.classes["float"][:, 0]})
        table.to_csv(folder / PREDICTIONS, index=False)
    return {"device": str(device), "images": len(images), "labelled": labelled_images.summary}
