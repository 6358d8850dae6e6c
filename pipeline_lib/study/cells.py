"""The cells of one source on one network: quantized for each replicate and precision, and measured."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from pipeline_lib.artifacts.fingerprints import digest_code, digest_path
from pipeline_lib.artifacts.records import read_json, write_json
from pipeline_lib.artifacts.workdir import WorkDirectory
from pipeline_lib.calibration.written import IMAGES, SAMPLES
from pipeline_lib.evaluation.calibration_set import class_facts, named_accuracy, set_facts
from pipeline_lib.evaluation.evaluate import batches, predict
from pipeline_lib.evaluation.features import look, split
from pipeline_lib.evaluation.gap import generalization_gap
from pipeline_lib.models.card import read_card
from pipeline_lib.models.classifier import Classifier, load_classifier
from pipeline_lib.models.device import place
from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.models.preprocessing import Pixels
from pipeline_lib.params.evaluate import Evaluate
from pipeline_lib.params.reconstruct import Method, Precision, Reconstruct
from pipeline_lib.params.study import StudyCells
from pipeline_lib.progress import ProgressBar
from pipeline_lib.quantization.attach import fold
from pipeline_lib.quantization.checkpoint import load_quantized
from pipeline_lib.quantization.quantize import BLOCKS, CURVES, MODEL, quantize, read_images
from pipeline_lib.study.files import CELLS, CLASSES, PREDICTIONS, SETS, UNITS
from pipeline_lib.study.sets import Source, judge_images

SEEN = 128  # calibration images that the generalization gap is measured on, and as many labelled ones


@dataclass(frozen=True)
class Quantization:
    """How a cell is quantized and judged: sections of params.yaml."""

    precisions: Mapping[str, Precision]
    reconstruct: Reconstruct
    methods: Mapping[str, Method]  # of `cnn` and `vit`
    evaluate: Evaluate
    cache_gib: float


def run_cells(
    source: Source, labelled: Path, how: Quantization, cells: StudyCells, device: torch.device, out: Path
) -> dict[str, Any]:
    """Write `out`: a row a cell, a calibration set, a class of one, a unit; and every prediction.

    A killed run continues at the next cell, and there at the next unit. Returns facts for the provenance.

    Raises:
        InputError: too few images for the replicates or the judges.
    """
    identity = {
        "out": out.name,
        "classifier": digest_path(source.classifier),
        "labelled": digest_path(labelled),
        "images": [digest_path(path) for path in (source.synthetic / source.name, source.real) if path.exists()],
        "judges": [digest_path(source.synthetic / judge) for judge in cells.judges],
        "params": [
            section.model_dump()
            for section in (cells, how.reconstruct, how.evaluate, source.treatment, source.distil)
            if section
        ],
        "precisions": {name: precision.model_dump() for name, precision in how.precisions.items()},
        "methods": {family: method.model_dump() for family, method in how.methods.items()},
        "code": digest_code(),
    }
    with WorkDirectory.locked("study", identity) as work:
        meter = _Meter(source, labelled, how, cells, device)
        todo = [(precision, r) for r in range(cells.replicates) for precision in how.precisions]
        with ProgressBar(f"study {out.name}", len(todo)) as bar:
            for replicate in range(cells.replicates):
                with TemporaryDirectory(dir=work.path) as folder:
                    calibration = Path(folder) / out.name
                    for precision in how.precisions:
                        name = f"{precision}-{replicate}.json"
                        if not work.done(name):
                            if not calibration.exists():
                                source.write(replicate, cells, device, calibration)
                            facts = meter.measure(precision, replicate, calibration)
                            with work.writing(name) as path:
                                write_json(path, facts)
                        bar.advance(1, f"{precision}: {read_json(work.units / name)['cell']['top1']}%")
        measured = {f"{p}-{r}": read_json(work.units / f"{p}-{r}.json") for p, r in todo}
        _write_tables(work, meter, measured)
        work.finish(out, [CELLS, SETS, CLASSES, UNITS, PREDICTIONS])
    return {"device": str(device), "seconds": {name: facts["seconds"] for name, facts in measured.items()}}


class _Meter:
    """What the cells of one network have in common, computed once."""

    def __init__(
        self, source: Source, labelled: Path, how: Quantization, cells: StudyCells, device: torch.device
    ) -> None:
        self.source, self.how, self.labelled, self.device = source, how, labelled, device
        classifier = load_classifier(source.classifier)
        self.data_config, self.classes = classifier.data_config, read_card(source.classifier).num_classes
        self.normalise = Normaliser(self.data_config, device)
        self.network = place(classifier.network, device)
        self.folded = _folded(load_classifier(source.classifier), device)
        self.keys, self.labels, top5 = self._predict({"float": self.network})
        self.float_top1 = top5["float"][:, 0]
        chosen = list(islice(self._labelled(), -(-cells.compared // self.how.evaluate.batch_size)))
        self.unseen = np.concatenate([pixels for _, pixels, _ in chosen])[: cells.compared]
        self.seen_labelled = look(self.network, split(self.unseen, how.evaluate.batch_size), self.normalise)
        self.judges = {j: judge_images(source.synthetic / j, cells, source.classifier) for j in cells.judges}

    def measure(self, precision: str, replicate: int, calibration: Path) -> dict[str, Any]:
        """Quantize on a calibration set, and measure the network and, with the first precision, the set."""
        images, rows = read_images(calibration / IMAGES), pd.read_csv(calibration / SAMPLES, keep_default_na=False)
        classes = [[int(c) for c in str(named).split()] for named in rows.loc[rows["kept"], "classes"]]
        key = {"precision": precision, "replicate": replicate}
        with TemporaryDirectory() as folder:
            quantized = Path(folder) / f"{calibration.name}-{precision}-{replicate}"
            began = time.monotonic()
            quantize(
                calibration / IMAGES,
                self.source.classifier,
                self.how.precisions[precision],
                self.how.reconstruct.model_copy(update={"seed": replicate}),
                self.how.methods,
                self.device,
                self.how.cache_gib,
                quantized,
            )
            seconds = round(time.monotonic() - began, 1)
            network = place(load_quantized(quantized, MODEL).network, self.device)
            curves, units = pd.read_csv(quantized / CURVES), pd.read_csv(quantized / BLOCKS)["unit"].tolist()
        top1 = self._predict({"top1": network})[2]["top1"][:, 0]
        gap = generalization_gap(
            self.folded, network, units, images[:SEEN], self.unseen[:SEEN], self.normalise, self.how.evaluate.batch_size
        )
        cell: dict[str, Any] = {
            **key,
            "float": _percent(self.float_top1 == self.labels),
            "top1": _percent(top1 == self.labels),
            "agreement": _percent(top1 == self.float_top1),
            "named_accuracy": named_accuracy(self._top1(network, images), classes),
        }
        for judge, pixels in self.judges.items():
            cell[f"agreement_{judge}"] = _percent(self._top1(network, pixels) == self._top1(self.network, pixels))
        steps = curves.groupby("unit", sort=False)["gradient_norm"].agg(["mean", "std"])
        gap = gap.join(steps.rename(columns={"mean": "gradient_norm", "std": "gradient_spread"}), on="unit")
        facts: dict[str, Any] = {
            "cell": cell,
            "units": [{**key, **row} for row in gap.to_dict("records")],
            "predictions": top1.tolist(),
            "seconds": seconds,  # for the provenance, not for a table
        }
        if precision == next(iter(self.how.precisions)):
            seen = look(self.network, split(images, self.how.evaluate.batch_size), self.normalise)
            labels = self.labels[: len(self.unseen)]
            by_class = class_facts(seen, classes, self.seen_labelled, labels)
            dropped = {"looked_at": len(rows), "dropped": int((~rows["kept"]).sum())}
            facts["set"] = {"replicate": replicate, **dropped, **set_facts(seen, classes, self.seen_labelled)}
            facts["classes"] = [{"replicate": replicate, "class": c, **f} for c, f in by_class.items()]
        return facts

    def _labelled(self) -> Iterator[Any]:
        return batches(self.labelled, self.data_config, self.how.evaluate)

    def _predict(self, networks: dict[str, nn.Module]) -> Any:
        return predict(networks, self.data_config, self.labelled, self.classes, self.how.evaluate, self.device)

    @torch.inference_mode()
    def _top1(self, network: nn.Module, pixels: Pixels) -> np.ndarray:
        return np.concatenate(
            [network(self.normalise(x)).argmax(1).cpu().numpy() for x in split(pixels, self.how.evaluate.batch_size)]
        )


def _folded(classifier: Classifier, device: torch.device) -> nn.Module:
    fold(classifier.network, tuple(classifier.data_config["input_size"]))
    return place(classifier.network, device)


def _write_tables(work: WorkDirectory, meter: _Meter, facts: dict[str, dict[str, Any]]) -> None:
    tables: dict[str, pd.DataFrame] = {
        CELLS: pd.DataFrame([f["cell"] for f in facts.values()]),
        SETS: pd.DataFrame([f["set"] for f in facts.values() if "set" in f]),
        CLASSES: pd.DataFrame([row for f in facts.values() for row in f.get("classes", [])]),
        UNITS: pd.DataFrame([row for f in facts.values() for row in f["units"]]),
        PREDICTIONS: pd.DataFrame(
            {"key": meter.keys, "label": meter.labels, "float": meter.float_top1}
            | {name: f["predictions"] for name, f in facts.items()}
        ),
    }
    for file, table in tables.items():
        with work.writing(file) as path:
            table.to_csv(path, index=False)


def _percent(hits: np.ndarray) -> float:
    return round(100 * float(np.mean(hits)), 3)
