"""Methods of reconstruction against each other, on real images and over seeds: top-1, not speed."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from pipeline_lib.artifacts.files import atomic
from pipeline_lib.calibration import sources
from pipeline_lib.calibration.assemble import assemble
from pipeline_lib.cells.cell import run_cell
from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.labelled import labelled_set
from pipeline_lib.evaluation.predict import predict
from pipeline_lib.models.card import resolve_data_config
from pipeline_lib.models.classifier import load_classifier
from pipeline_lib.models.device import place
from pipeline_lib.params.everything import Params
from pipeline_lib.progress import ProgressBar
from pipeline_lib.prompts.vocabulary import read_vocabulary
from pipeline_lib.quantization.checkpoint import MODEL, NEAREST, load_quantized
from pipeline_lib.quantization.families import FAMILIES
from pipeline_lib.quantization.quantize import Quantization

CHECKPOINTS = {"nearest": NEAREST, "top1": MODEL}
RUN = ["model", "precision", "method", "iterations", "tune_iterations", "seed"]  # columns that tell a run from others


def compare_methods(
    params: Params,
    models: Sequence[str],
    precisions: Sequence[str],
    methods: Sequence[str],
    iterations: int,
    tune_iterations: int,
    seeds: int,
    device: torch.device,
    out: Path,
) -> pd.DataFrame:
    """A row for each run: top-1 in percent of the network as float, rounded to nearest, and reconstructed.

    Networks are calibrated on `task.real` and judged on all labelled images. The CSV file `out` is written after every
    run; runs that are in it already are not done again.

    Args:
        params: all of params.yaml.
        models: folders below `task.classifiers`.
        precisions: keys of `precisions`.
        methods: keys of `methods`.
        iterations: of each unit, for methods that reconstruct units.
        tune_iterations: of the whole network, for methods that tune it.
        seeds: runs of each, with the seeds from 0.
        device: where all of it runs.
        out: CSV file.

    Raises:
        InputError: params.yaml has no such precision or method.
    """
    for names, section, defined in (
        (precisions, "precisions", params.precisions),
        (methods, "methods", params.methods),
    ):
        for name in names:
            if name not in defined:
                raise InputError(f"params.yaml: no {name!r} in `{section}`; there are {', '.join(defined)}")
    lengths = {
        name: (
            iterations if params.methods[name].iterations else 0,
            tune_iterations if params.methods[name].tune_iterations else 0,
        )
        for name in methods
    }
    todo = [
        (model, precision, method, *lengths[method], seed)
        for seed in range(seeds)
        for model in models
        for precision in precisions
        for method in methods
    ]
    table = pd.read_csv(out) if out.exists() else pd.DataFrame(columns=[*RUN, "float", "nearest", "top1", "seconds"])
    done = set(table[RUN].itertuples(index=False, name=None))
    float_top1: dict[str, dict[str, float]] = {}
    with ProgressBar("bench methods", len(todo)) as bar:
        for run in todo:
            if run not in done:
                model = run[0]
                if model not in float_top1:
                    network = load_classifier(Path(params.task.classifiers) / model).network
                    float_top1[model] = _top1(params, model, {"float": network}, device)
                figures = float_top1[model] | _run(params, *run, device)
                row = pd.DataFrame([dict(zip(RUN, run, strict=True)) | figures])
                table = pd.concat([table, row], ignore_index=True) if len(table) else row
                with atomic(out) as path:
                    table.to_csv(path, index=False)
            bar.advance(1, " ".join(map(str, run)))
    return table


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each method and setting: means over seeds, and the standard deviation of the reconstructed top-1."""
    groups = table.groupby(RUN[:-1], sort=False)
    columns = {"float": ("float", "mean"), "nearest": ("nearest", "mean"), "top1": ("top1", "mean")}
    spread = {"spread": ("top1", "std"), "runs": ("top1", "count"), "seconds": ("seconds", "mean")}
    return groups.agg(**columns, **spread).reset_index()


def _run(
    params: Params,
    model: str,
    precision: str,
    method: str,
    iterations: int,
    tune_iterations: int,
    seed: int,
    device: torch.device,
) -> dict[str, Any]:
    """Top-1 of one run, rounded to nearest and reconstructed, and the seconds that quantizing took."""
    classifier = Path(params.task.classifiers) / model
    lengths = {"iterations": iterations, "tune_iterations": tune_iterations}
    with_lengths = params.methods[method].model_copy(update=lengths)
    reconstruct = params.reconstruct.model_copy(
        update={"seed": seed, "methods": {family.name: method for family in FAMILIES}}
    )
    quantization = Quantization(
        precision=params.precisions[precision],
        reconstruct=reconstruct,
        methods={method: with_lengths},
        device=device,
        cache_gib=params.runtime.cache_gib,
    )

    def judge(quantized: Path) -> dict[str, float]:
        networks = {name: load_quantized(quantized, file).network for name, file in CHECKPOINTS.items()}
        return _top1(params, model, networks, device)

    with TemporaryDirectory() as folder:
        calibration = Path(folder) / "calibration"
        real = sources.pictures(Path(params.task.real), params.calibrate.seed)
        assemble(real, params.calibrate.count, resolve_data_config(classifier), calibration)
        name = f"{model}-{precision}-{method}-{seed}"
        top1, seconds = run_cell(name, calibration, classifier, quantization, judge)
    return top1 | {"seconds": round(seconds, 1)}


def _top1(params: Params, model: str, networks: dict[str, nn.Module], device: torch.device) -> dict[str, float]:
    """Top-1 of each network, in percent of all labelled images, preprocessed as the model needs them."""
    judged = {name: place(network, device) for name, network in networks.items()}
    images = labelled_set(Path(params.task.labelled), read_vocabulary(Path(params.task.classes))).images
    data_config = resolve_data_config(Path(params.task.classifiers) / model)
    found = predict(judged, data_config, images, params.evaluate.batch_size, device)
    return {
        name: round(100 * float(np.mean(likeliest[:, 0] == found.labels)), 2)
        for name, likeliest in found.classes.items()
    }
