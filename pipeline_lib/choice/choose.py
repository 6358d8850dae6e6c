"""Ranking sources by agreement on synthetic images that no network was calibrated on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from pipeline_lib.artifacts.files import atomic
from pipeline_lib.calibration.sets import IMAGES, read_images
from pipeline_lib.errors import InputError
from pipeline_lib.models.classifier import load_classifier
from pipeline_lib.models.device import place
from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.models.prediction import Indices, predicted_classes
from pipeline_lib.models.preprocessing import Pixels
from pipeline_lib.params.task import Axes
from pipeline_lib.quantization.checkpoint import load_quantized

AUTO = "auto"
BATCH = 64  # images


def choose(
    data: Path, classifiers: Path, axes: Axes, held_out: int, calibration: str, device: torch.device, out: Path
) -> dict[str, Any]:
    """Write `out`, ranking.csv: a row for each network with its scores, whether it is chosen, and its folder.

    Networks are judged on the images that reconstruction keeps back: the last `held_out` of the calibration set of
    every recipe, and of every source of images that were rendered elsewhere. Only a network of a treated source may
    have been optimised on some of these. A score is the percentage of a
    recipe's images on which the network predicts what the float network does; for each model and precision that source
    is chosen whose mean score over recipes is highest. No label and no real image is used, and sources of real images
    do not compete, unless `calibration` names one. `judge_classes` is the number of classes that the float network sees
    in these images: where it is small, as in images of a generator that draws nothing, any network agrees with it.
    Returns facts for the provenance.

    Args:
        data: folder with calibration/ and quantized/.
        classifiers: folder with a folder for each model.
        axes: models, precisions, and the sources to be ranked.
        held_out: images that reconstruction keeps back of each set.
        calibration: `auto`, or a source that is chosen whatever its score.
        device: where the networks run.
        out: file to be written.

    Raises:
        InputError: `calibration` is no source, or there is nothing to choose from or to judge by.
    """
    candidates = [source for source in axes.sources if source not in axes.real or source == calibration]
    if calibration not in (AUTO, *candidates):
        raise InputError(
            f"params.yaml: `choose.calibration` is {calibration!r}; expected auto or one of {', '.join(axes.sources)}"
        )
    judges = [*axes.recipes, *axes.images]
    if calibration == AUTO and not (candidates and judges and held_out):
        raise InputError(
            "params.yaml: `choose.calibration: auto` needs a source without real images, and rendered images of which "
            "`reconstruct.held_out` keeps some back to judge by; name a source instead"
        )
    rows: list[dict[str, Any]] = []
    for model in axes.models:
        judge = _Judge(data / "calibration", classifiers / model, model, judges, held_out, device)
        for precision in axes.precisions:
            cells = {source: data / "quantized" / f"{source}-{model}-{precision}" for source in candidates}
            scores = {source: judge.agreement(cell) for source, cell in cells.items()}
            chosen = calibration
            if calibration == AUTO:
                chosen = max(scores, key=lambda source: scores[source]["agreement"])
            for source, score in scores.items():
                row = {"model": model, "precision": precision, "source": source, **score}
                facts = {"judge_classes": judge.classes_seen, "chosen": source == chosen}
                rows.append({**row, **facts, "checkpoint": cells[source].as_posix()})
    with atomic(out) as path:
        pd.DataFrame(rows).to_csv(path, index=False, float_format="%.3f", na_rep="nan")
    return {"device": str(device), "judge_images": held_out * len(judges)}


class _Judge:
    """Compares the networks of a model with the float one, on the images that are kept back."""

    def __init__(
        self,
        calibration: Path,
        classifier: Path,
        model: str,
        recipes: Sequence[str],
        held_out: int,
        device: torch.device,
    ) -> None:
        loaded = load_classifier(classifier)
        self.device = device
        self.normalise = Normaliser(loaded.data_config, device)
        sets = {recipe: read_images(calibration / f"{recipe}-{model}" / IMAGES) for recipe in recipes}
        self.images: dict[str, Pixels] = {recipe: images[len(images) - held_out :] for recipe, images in sets.items()}
        self.expected = self._predict(loaded.network)
        self.classes_seen = len(set().union(*(predicted.tolist() for predicted in self.expected.values())))

    def agreement(self, cell: Path) -> dict[str, float]:
        """Percentage of images on which the cell's network predicts what the float one does: mean, and by recipe."""
        predicted = self._predict(load_quantized(cell).network)
        by_recipe = {r: 100 * float(np.mean(predicted[r] == self.expected[r])) for r in self.images}
        return {
            "agreement": float(np.mean(list(by_recipe.values()) or [np.nan])),
            **{f"on_{recipe}": percentage for recipe, percentage in by_recipe.items()},
        }

    def _predict(self, network: nn.Module) -> dict[str, Indices]:
        network = place(network, self.device)
        return {
            recipe: predicted_classes(network, images, self.normalise, BATCH) for recipe, images in self.images.items()
        }
