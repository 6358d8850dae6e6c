"""Ranking sources by agreement on synthetic images that no network was calibrated on."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from pipeline_lib.artifacts.files import atomic_directory
from pipeline_lib.errors import InputError
from pipeline_lib.models.classifier import load_classifier
from pipeline_lib.models.device import place
from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.models.preprocessing import Pixels
from pipeline_lib.params.task import Axes
from pipeline_lib.progress import ProgressBar
from pipeline_lib.quantization.checkpoint import load_quantized
from pipeline_lib.quantization.quantize import DESCRIPTION, MODEL, read_images

RANKING = "ranking.csv"
AUTO = "auto"
BATCH = 64  # images


def choose(
    data: Path, classifiers: Path, axes: Axes, held_out: int, calibration: str, device: torch.device, out: Path
) -> dict[str, Any]:
    """Write `out`: ranking.csv, and MODEL-PRECISION/ with the checkpoint of the chosen source for each setting.

    The judges are the images that reconstruction keeps back, the last `held_out` of every recipe's calibration set; no
    network has seen any. A network's score on a recipe's images is the percentage on which its prediction is the float
    network's; the source with the highest mean over recipes is chosen. No label and no real image is looked at, and
    sources of real images do not compete. `calibration` names a source instead of `auto` to take that one whatever
    its rank. Returns facts for the provenance.

    Raises:
        InputError: `calibration` is no source, or there is nothing to choose from or to judge by.
    """
    candidates = [source for source in axes.sources if source not in axes.real]
    if calibration not in (AUTO, *axes.sources):
        raise InputError(
            f"params.yaml: `choose.calibration` is {calibration!r}; expected auto or one of {', '.join(axes.sources)}"
        )
    if calibration == AUTO and not (candidates and axes.recipes and held_out):
        raise InputError(
            "params.yaml: `choose.calibration: auto` needs a source without real images, a recipe that judges, and "
            "`reconstruct.held_out` above 0; name a source instead"
        )
    rows: list[dict[str, Any]] = []
    with atomic_directory(out) as folder, ProgressBar("choose", len(axes.models)) as bar:
        for model in axes.models:
            judge = _Judge(data / "calibration", classifiers / model, model, axes.recipes, held_out, device)
            for precision in axes.precisions:
                cells = {s: data / "quantized" / f"{s}-{model}-{precision}" for s in axes.sources}
                scores = {source: judge.agreement(cells[source]) for source in candidates}
                chosen = calibration if calibration != AUTO else max(scores, key=lambda s: scores[s]["agreement"])
                (folder / f"{model}-{precision}").mkdir()
                for file in (MODEL, DESCRIPTION):
                    shutil.copyfile(cells[chosen] / file, folder / f"{model}-{precision}" / file)
                setting = {"model": model, "precision": precision}
                rows += [{**setting, "source": s, **score, "chosen": s == chosen} for s, score in scores.items()]
            bar.advance(1, model)
        pd.DataFrame(rows).to_csv(folder / RANKING, index=False, float_format="%.3f")
    return {"device": str(device), "judge_images": held_out * len(axes.recipes)}


class _Judge:
    """The float network's predictions on the images that are kept back."""

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
        self.device, self.normalise = device, Normaliser(loaded.data_config, device)
        sets = {recipe: read_images(calibration / f"{recipe}-{model}" / "images.npy") for recipe in recipes}
        self.images: dict[str, Pixels] = {recipe: images[len(images) - held_out :] for recipe, images in sets.items()}
        self.expected = self._predict(loaded.network)

    def agreement(self, cell: Path) -> dict[str, float]:
        """Percentage of images on which the cell's network predicts what the float one does: mean, and by recipe."""
        predicted = self._predict(load_quantized(cell, MODEL).network)
        by_recipe = {r: 100 * float(np.mean(predicted[r] == self.expected[r])) for r in self.images}
        return {"agreement": float(np.mean(list(by_recipe.values()))), **{f"on_{r}": a for r, a in by_recipe.items()}}

    @torch.inference_mode()
    def _predict(self, network: nn.Module) -> dict[str, npt.NDArray[np.int64]]:
        network = place(network, self.device)
        return {
            recipe: np.concatenate(
                [
                    network(self.normalise(images[i : i + BATCH])).argmax(1).cpu().numpy()
                    for i in range(0, len(images), BATCH)
                ]
            )
            for recipe, images in self.images.items()
        }
