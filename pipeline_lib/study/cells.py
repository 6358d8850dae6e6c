"""The cells of one source on one network: quantized for each replicate and precision, and evaluated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline_lib.artifacts.dvc_cache import last_run
from pipeline_lib.artifacts.fingerprints import digest_path
from pipeline_lib.artifacts.records import read_json, write_json
from pipeline_lib.artifacts.workdir import WorkDirectory
from pipeline_lib.calibration.sets import CalibrationSet, read_set
from pipeline_lib.cells.cell import run_cell
from pipeline_lib.evaluation.calibration_set import class_facts, named_accuracy, set_facts
from pipeline_lib.evaluation.features import Responses, responses
from pipeline_lib.evaluation.gap import generalization_gap
from pipeline_lib.evaluation.labelled import labelled_set, sample
from pipeline_lib.evaluation.networks import load_networks
from pipeline_lib.evaluation.predict import Predictions, labelled_pixels, predict
from pipeline_lib.models.card import check_class_count
from pipeline_lib.models.classifier import load_classifier
from pipeline_lib.models.device import place
from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.models.prediction import in_batches, predicted_classes
from pipeline_lib.params.evaluate import Evaluate
from pipeline_lib.params.reconstruct import Method, Precision, Reconstruct
from pipeline_lib.params.study import StudyCells
from pipeline_lib.progress import ProgressBar
from pipeline_lib.prompts.vocabulary import ClassName
from pipeline_lib.quantization.quantize import BLOCKS, CURVES, Quantization
from pipeline_lib.quantization.quantize import VERSION as QUANTIZATION_VERSION
from pipeline_lib.study.files import CELLS, CLASSES, PREDICTIONS, SETS, UNITS
from pipeline_lib.study.sets import StudySource, judge_images

# The version of what computes the tables; quantization has its own. Raise it with a change that gives other figures.
VERSION = 2
GAP_IMAGES = 128  # calibration images that the generalization gap is measured on, and as many labelled ones


@dataclass(frozen=True)
class StudySettings:
    """How cells are quantized and judged: sections of params.yaml, and where."""

    precisions: Mapping[str, Precision]
    reconstruct: Reconstruct
    methods: Mapping[str, Method]
    evaluate: Evaluate
    cells: StudyCells
    device: torch.device
    cache_gib: float

    def quantization(self, precision: str, replicate: int) -> Quantization:
        """How a cell is quantized; each replicate has its own seed."""
        seeded = self.reconstruct.model_copy(update={"seed": replicate})
        return Quantization(self.precisions[precision], seeded, self.methods, self.device, self.cache_gib)


def run_cells(
    source: StudySource,
    labelled: Path,
    classes: Sequence[ClassName],
    settings: StudySettings,
    out: Path,
    stage: str,
) -> dict[str, Any]:
    """Write `out`: tables of cells, calibration sets, classes of these and units, and the predictions for every image.

    A killed run continues at the next cell, and there at the next unit. Finished work is kept until other work for the
    same out begins; a forced run does all of it again. Returns facts for the provenance.

    Args:
        source: of the calibration images.
        labelled: folder of labelled images of the domain.
        classes: in the order of the network's outputs.
        settings: how cells are quantized and judged.
        out: folder to be written.
        stage: name of the DVC stage whose out it is.

    Raises:
        InputError: too few images for the replicates or the judges.
    """
    cells = settings.cells
    sections = (cells, settings.reconstruct, settings.evaluate, source.treatment, source.distil)
    identity = {
        "out": out.name,
        "classifier": digest_path(source.classifier),
        "labelled": digest_path(labelled),
        "classes": [[entry.name, entry.synset] for entry in classes],  # which labels may name
        "images": [digest_path(path) for path in source.read_from],
        "judges": [digest_path(source.synthetic / judge) for judge in cells.judges],
        "params": [section.differences() for section in sections if section],
        "precisions": {name: precision.differences() for name, precision in settings.precisions.items()},
        "methods": {name: method.differences() for name, method in settings.methods.items()},
        "versions": [VERSION, QUANTIZATION_VERSION],
    }
    files = [CELLS, SETS, CLASSES, UNITS, PREDICTIONS]
    names = [f"{precision}-{replicate}" for replicate in range(cells.replicates) for precision in settings.precisions]
    with WorkDirectory.locked("study", identity) as work:
        kept, written = work.units / PREDICTIONS, (out / PREDICTIONS).as_posix()
        if work.done(PREDICTIONS) and last_run(stage).was_of(kept, written):
            work.clear()
        if not all(map(work.done, files)):
            evaluation = _Evaluation(source, labelled, classes, settings)
            _evaluate_cells(work, evaluation, len(names), out.name)
            _write_tables(work, evaluation.float_predictions, {name: _read(work, name) for name in names})
        work.publish(out, files)
        seconds = {name: _read(work, name)["seconds"] for name in names}
    return {"device": str(settings.device), "seconds": seconds}


def _read(work: WorkDirectory, name: str) -> dict[str, Any]:
    return read_json(work.units / f"{name}.json")


def _evaluate_cells(work: WorkDirectory, evaluation: "_Evaluation", total: int, title: str) -> None:
    """Write the figures of each cell into the work directory."""
    settings = evaluation.settings
    with ProgressBar(f"study {title}", total) as bar:
        for replicate in range(settings.cells.replicates):
            with TemporaryDirectory(dir=work.path) as folder:
                calibration = Path(folder) / title
                for precision in settings.precisions:
                    name = f"{precision}-{replicate}"
                    if not work.done(f"{name}.json"):
                        if not calibration.exists():
                            evaluation.source.write(replicate, settings.cells, settings.device, calibration)
                        facts = evaluation.of_cell(precision, replicate, calibration)
                        with work.writing(f"{name}.json") as path:
                            write_json(path, facts)
                    bar.advance(1, f"{precision}: {_read(work, name)['cell']['top1']}%")


class _Evaluation:
    """Evaluates the cells of one network. What they have in common is computed once."""

    def __init__(
        self, source: StudySource, labelled: Path, classes: Sequence[ClassName], settings: StudySettings
    ) -> None:
        self.source, self.settings = source, settings
        cells, evaluate, device = settings.cells, settings.evaluate, settings.device
        classifier = load_classifier(source.classifier)
        self.data_config = classifier.data_config
        check_class_count(source.classifier, len(classes))
        self.images = labelled_set(labelled, classes).chosen(evaluate.fraction)
        self.normalise = Normaliser(self.data_config, device)
        self.batch_size = evaluate.batch_size
        self.network = place(classifier.network, device)
        self.float_predictions = self._predict({"float": self.network})
        compared = sample(self.images, cells.compared)
        self.labels_of_compared = self.float_predictions.labels[compared]
        pixels = labelled_pixels([self.images[position] for position in compared], self.data_config)
        self.compared = np.stack(list(pixels))
        self.to_compared = self._responses(self.compared)
        self.judge_images = {
            judge: judge_images(source.synthetic / judge, cells, source.classifier) for judge in cells.judges
        }

    def of_cell(self, precision: str, replicate: int, calibration: Path) -> dict[str, Any]:
        """Quantize on a calibration set, and evaluate the network and, with the first precision, the set."""
        calibration_set = read_set(calibration)
        name = f"{calibration.name}-{precision}-{replicate}"
        quantization = self.settings.quantization(precision, replicate)
        judge = partial(self._of_network, calibration=calibration_set)
        found, seconds = run_cell(name, calibration, self.source.classifier, quantization, judge)
        figures, units, top1 = found
        cell = {"precision": precision, "replicate": replicate}
        facts: dict[str, Any] = {
            "cell": {**cell, **figures},
            "units": [{**cell, **unit} for unit in units.to_dict("records")],
            "predictions": top1.tolist(),
            "seconds": round(seconds, 1),  # for the provenance, not for a table
        }
        if precision == next(iter(self.settings.precisions)):
            facts |= self._of_set(replicate, calibration_set)
        return facts

    def _of_network(
        self, quantized: Path, calibration: CalibrationSet
    ) -> tuple[dict[str, Any], pd.DataFrame, np.ndarray]:
        """The figures of a quantized network, a row for each unit, and its predictions for the labelled images."""
        networks = load_networks(quantized, self.source.classifier, self.settings.device)
        network, labels = networks.reconstructed, self.float_predictions.labels
        float_top1 = self.float_predictions.classes["float"][:, 0]
        top1 = self._predict({"top1": network}).classes["top1"][:, 0]
        figures: dict[str, Any] = {
            "float": _percent(float_top1 == labels),
            "top1": _percent(top1 == labels),
            "agreement": _percent(top1 == float_top1),
            "named_accuracy": named_accuracy(self._top1(network, calibration.images), calibration.classes),
        }
        for judge, pixels in self.judge_images.items():
            figures[f"agreement_{judge}"] = _percent(self._top1(network, pixels) == self._top1(self.network, pixels))
        gap = generalization_gap(
            networks.reference,
            network,
            pd.read_csv(quantized / BLOCKS)["unit"].tolist(),
            calibration.images[:GAP_IMAGES],
            self.compared[:GAP_IMAGES],
            self.normalise,
            self.batch_size,
        )
        steps = pd.read_csv(quantized / CURVES).groupby("unit", sort=False)["gradient_norm"].agg(["mean", "std"])
        units = gap.join(steps.rename(columns={"mean": "gradient_norm", "std": "gradient_spread"}), on="unit")
        return figures, units, top1

    def _of_set(self, replicate: int, calibration: CalibrationSet) -> dict[str, Any]:
        """Figures of a calibration set, and of its classes."""
        to_calibration = self._responses(calibration.images)
        by_class = class_facts(to_calibration, calibration.classes, self.to_compared, self.labels_of_compared)
        counts = {"looked_at": calibration.looked_at, "dropped": calibration.left_out}
        figures = set_facts(to_calibration, calibration.classes, self.to_compared)
        return {
            "set": {"replicate": replicate, **counts, **figures},
            "classes": [{"replicate": replicate, "class": c, **facts} for c, facts in by_class.items()],
        }

    def _responses(self, pixels: np.ndarray) -> Responses:
        return responses(self.network, in_batches(pixels, self.batch_size), self.normalise)

    def _predict(self, networks: dict[str, torch.nn.Module]) -> Predictions:
        return predict(networks, self.data_config, self.images, self.batch_size, self.settings.device)

    def _top1(self, network: torch.nn.Module, pixels: np.ndarray) -> np.ndarray:
        return predicted_classes(network, pixels, self.normalise, self.batch_size)


def _write_tables(work: WorkDirectory, float_predictions: Predictions, cells: dict[str, dict[str, Any]]) -> None:
    every = list(cells.values())
    predictions = {
        "key": float_predictions.keys,
        "label": float_predictions.labels,
        "float": float_predictions.classes["float"][:, 0],
        **{name: cell["predictions"] for name, cell in cells.items()},
    }
    tables: dict[str, Any] = {
        CELLS: [cell["cell"] for cell in every],
        SETS: [cell["set"] for cell in every if "set" in cell],
        CLASSES: [row for cell in every for row in cell.get("classes", [])],
        UNITS: [row for cell in every for row in cell["units"]],
        PREDICTIONS: predictions,
    }
    for file, table in tables.items():
        with work.writing(file) as path:
            pd.DataFrame(table).to_csv(path, index=False)


def _percent(hits: np.ndarray) -> float:
    return round(100 * float(np.mean(hits)), 3)
