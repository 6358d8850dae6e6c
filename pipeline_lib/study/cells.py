"""The cells of one source on one network: quantized for each replicate and precision, and measured."""

from collections.abc import Mapping
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
from pipeline_lib.evaluation.features import responses
from pipeline_lib.evaluation.gap import generalization_gap
from pipeline_lib.evaluation.networks import load_networks
from pipeline_lib.evaluation.predict import Predictions, first_labelled, predict
from pipeline_lib.models.card import read_card
from pipeline_lib.models.classifier import load_classifier
from pipeline_lib.models.device import place
from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.models.prediction import in_batches, predicted_classes
from pipeline_lib.params.evaluate import Evaluate
from pipeline_lib.params.reconstruct import Method, Precision, Reconstruct
from pipeline_lib.params.study import StudyCells
from pipeline_lib.progress import ProgressBar
from pipeline_lib.quantization.quantize import BLOCKS, CURVES, Quantization
from pipeline_lib.quantization.quantize import VERSION as QUANTIZATION_VERSION
from pipeline_lib.study.files import CELLS, CLASSES, PREDICTIONS, SETS, UNITS
from pipeline_lib.study.sets import StudySource, judge_images

# Of what the tables are computed by; quantization has a version of its own. Raise it with a change that gives other
# figures.
VERSION = 1
SEEN = 128  # calibration images that the generalization gap is measured on, and as many labelled ones


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
        """Of a cell; each replicate has its own seed."""
        seeded = self.reconstruct.model_copy(update={"seed": replicate})
        return Quantization(self.precisions[precision], seeded, self.methods, self.device, self.cache_gib)


def run_cells(source: StudySource, labelled: Path, settings: StudySettings, out: Path, stage: str) -> dict[str, Any]:
    """Write `out`: a row a cell, a calibration set, a class of one, a unit; and every prediction.

    A killed run continues at the next cell, and there at the next unit. Finished work is kept until the next of the
    same out; a forced run does all of it again. Returns facts for the provenance.

    Args:
        source: of the calibration images.
        labelled: folder of labelled images of the domain.
        settings: how cells are quantized and judged.
        out: folder to be written.
        stage: of DVC, whose out it is.

    Raises:
        InputError: too few images for the replicates or the judges.
    """
    cells = settings.cells
    sections = (cells, settings.reconstruct, settings.evaluate, source.treatment, source.distil)
    identity = {
        "out": out.name,
        "classifier": digest_path(source.classifier),
        "labelled": digest_path(labelled),
        "images": [digest_path(path) for path in source.read_from],
        "judges": [digest_path(source.synthetic / judge) for judge in cells.judges],
        "params": [section.differences() for section in sections if section],
        "precisions": {name: precision.differences() for name, precision in settings.precisions.items()},
        "methods": {name: method.differences() for name, method in settings.methods.items()},
        "versions": [VERSION, QUANTIZATION_VERSION],
    }
    files = [CELLS, SETS, CLASSES, UNITS, PREDICTIONS]
    names = [f"{precision}-{r}" for r in range(cells.replicates) for precision in settings.precisions]
    with WorkDirectory.locked("study", identity) as work:
        kept, written = work.units / PREDICTIONS, (out / PREDICTIONS).as_posix()
        if work.done(PREDICTIONS) and last_run(stage).was_of(kept, written):
            work.clear()
        if not all(map(work.done, files)):
            judge = _NetworkJudge(source, labelled, settings)
            _measure(work, judge, len(names), out.name)
            _write_tables(work, judge.float_predictions, {name: _read(work, name) for name in names})
        work.publish(out, files)
        seconds = {name: _read(work, name)["seconds"] for name in names}
    return {"device": str(settings.device), "seconds": seconds}


def _read(work: WorkDirectory, name: str) -> dict[str, Any]:
    return read_json(work.units / f"{name}.json")


def _measure(work: WorkDirectory, judge: "_NetworkJudge", total: int, title: str) -> None:
    """Write what is measured of each cell into the work directory."""
    settings = judge.settings
    with ProgressBar(f"study {title}", total) as bar:
        for replicate in range(settings.cells.replicates):
            with TemporaryDirectory(dir=work.path) as folder:
                calibration = Path(folder) / title
                for precision in settings.precisions:
                    name = f"{precision}-{replicate}"
                    if not work.done(f"{name}.json"):
                        if not calibration.exists():
                            judge.source.write(replicate, settings.cells, settings.device, calibration)
                        facts = judge.measure(precision, replicate, calibration)
                        with work.writing(f"{name}.json") as path:
                            write_json(path, facts)
                    bar.advance(1, f"{precision}: {_read(work, name)['cell']['top1']}%")


class _NetworkJudge:
    """Judges the cells of one network. What they have in common is computed once."""

    def __init__(self, source: StudySource, labelled: Path, settings: StudySettings) -> None:
        self.source, self.settings, self.labelled = source, settings, labelled
        cells, evaluate, device = settings.cells, settings.evaluate, settings.device
        classifier = load_classifier(source.classifier)
        self.data_config, self.classes = classifier.data_config, read_card(source.classifier).num_classes
        self.normalise, self.batch_size = Normaliser(self.data_config, device), evaluate.batch_size
        self.network = place(classifier.network, device)
        self.float_predictions = self._predict({"float": self.network})
        self.unseen = first_labelled(labelled, self.data_config, evaluate, cells.compared)
        self.seen_labelled = responses(self.network, in_batches(self.unseen, self.batch_size), self.normalise)
        self.judges = {
            judge: judge_images(source.synthetic / judge, cells, source.classifier) for judge in cells.judges
        }

    def measure(self, precision: str, replicate: int, calibration: Path) -> dict[str, Any]:
        """Quantize on a calibration set, and measure the network and, with the first precision, the set."""
        images, key = read_set(calibration), {"precision": precision, "replicate": replicate}
        judge = partial(self._judge, images=images)
        name = f"{calibration.name}-{precision}-{replicate}"
        how = self.settings.quantization(precision, replicate)
        (cell, units, top1), seconds = run_cell(name, calibration, self.source.classifier, how, judge)
        facts: dict[str, Any] = {
            "cell": {**key, **cell},
            "units": [{**key, **row} for row in units.to_dict("records")],
            "predictions": top1.tolist(),
            "seconds": round(seconds, 1),  # for the provenance, not for a table
        }
        if precision == next(iter(self.settings.precisions)):
            facts |= self._of_set(replicate, images)
        return facts

    def _judge(self, quantized: Path, images: CalibrationSet) -> tuple[dict[str, Any], pd.DataFrame, np.ndarray]:
        """Of a quantized network: figures, a row a unit, and its predictions for the labelled images."""
        networks = load_networks(quantized, self.source.classifier, self.settings.device)
        network, labels = networks.reconstructed, self.float_predictions.labels
        float_top1 = self.float_predictions.classes["float"][:, 0]
        top1 = self._predict({"top1": network}).classes["top1"][:, 0]
        cell: dict[str, Any] = {
            "float": _percent(float_top1 == labels),
            "top1": _percent(top1 == labels),
            "agreement": _percent(top1 == float_top1),
            "named_accuracy": named_accuracy(self._top1(network, images.images), images.classes),
        }
        for judge, pixels in self.judges.items():
            cell[f"agreement_{judge}"] = _percent(self._top1(network, pixels) == self._top1(self.network, pixels))
        gap = generalization_gap(
            networks.reference,
            network,
            pd.read_csv(quantized / BLOCKS)["unit"].tolist(),
            images.images[:SEEN],
            self.unseen[:SEEN],
            self.normalise,
            self.batch_size,
        )
        steps = pd.read_csv(quantized / CURVES).groupby("unit", sort=False)["gradient_norm"].agg(["mean", "std"])
        units = gap.join(steps.rename(columns={"mean": "gradient_norm", "std": "gradient_spread"}), on="unit")
        return cell, units, top1

    def _of_set(self, replicate: int, images: CalibrationSet) -> dict[str, Any]:
        """Figures of a calibration set, and of its classes."""
        seen = responses(self.network, in_batches(images.images, self.batch_size), self.normalise)
        labels = self.float_predictions.labels[: len(self.unseen)]
        by_class = class_facts(seen, images.classes, self.seen_labelled, labels)
        counts = {"looked_at": images.looked_at, "dropped": images.left_out}
        return {
            "set": {"replicate": replicate, **counts, **set_facts(seen, images.classes, self.seen_labelled)},
            "classes": [{"replicate": replicate, "class": c, **facts} for c, facts in by_class.items()],
        }

    def _predict(self, networks: dict[str, torch.nn.Module]) -> Predictions:
        evaluate, device = self.settings.evaluate, self.settings.device
        return predict(networks, self.data_config, self.labelled, self.classes, evaluate, device)

    def _top1(self, network: torch.nn.Module, pixels: np.ndarray) -> np.ndarray:
        return predicted_classes(network, pixels, self.normalise, self.batch_size)


def _write_tables(work: WorkDirectory, floats: Predictions, facts: dict[str, dict[str, Any]]) -> None:
    tables: dict[str, pd.DataFrame] = {
        CELLS: pd.DataFrame([f["cell"] for f in facts.values()]),
        SETS: pd.DataFrame([f["set"] for f in facts.values() if "set" in f]),
        CLASSES: pd.DataFrame([row for f in facts.values() for row in f.get("classes", [])]),
        UNITS: pd.DataFrame([row for f in facts.values() for row in f["units"]]),
        PREDICTIONS: pd.DataFrame(
            {"key": floats.keys, "label": floats.labels, "float": floats.classes["float"][:, 0]}
            | {name: f["predictions"] for name, f in facts.items()}
        ),
    }
    for file, table in tables.items():
        with work.writing(file) as path:
            table.to_csv(path, index=False)


def _percent(hits: np.ndarray) -> float:
    return round(100 * float(np.mean(hits)), 3)
