"""Treated sets: mixed images, and the stage on the tiny world."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.artifacts.records import read_json
from pipeline_lib.calibration.mixing import mix_images
from pipeline_lib.calibration.sources import synthetic
from pipeline_lib.errors import InputError
from pipeline_lib.models.preprocessing import resize_and_crop
from tests.conftest import edit_params

RECORDS = [{"key": f"k-{i}", "classes": [i, 9], "prompt": f"prompt {i}"} for i in range(6)]
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)


def parents(record: dict) -> tuple[int, int]:
    one, other = (int(key.removeprefix("k-")) for key in record["key"].split("+"))
    return one, other


def test_mixup_is_a_convex_combination() -> None:
    mixed, records = mix_images("mixup", PIXELS, RECORDS, 0)
    weights = set()
    for i, (image, record) in enumerate(zip(mixed, records, strict=True)):
        one, other = parents(record)
        assert one == i != other
        assert record["prompt"] == f"prompt {one} + prompt {other}"
        assert record["classes"] == [one, 9, other]
        a, b = PIXELS[one].astype(float).ravel(), PIXELS[other].astype(float).ravel()
        weight = np.dot(image.ravel() - b, a - b) / np.dot(a - b, a - b)
        assert 0 <= weight <= 1
        assert np.abs(weight * a + (1 - weight) * b - image.ravel()).max() < 1
        weights.add(round(weight, 2))
    assert len(weights) > 3, "each image has a weight of its own"
    assert np.array_equal(mix_images("mixup", PIXELS, RECORDS, 0)[0], mixed)
    assert not np.array_equal(mix_images("mixup", PIXELS, RECORDS, 1)[0], mixed)


def test_cutmix_puts_a_box_of_the_partner() -> None:
    mixed, records = mix_images("cutmix", PIXELS, RECORDS, 0)
    areas = []
    for image, record in zip(mixed, records, strict=True):
        one, other = parents(record)
        foreign = (image != PIXELS[one]).any(-1)
        areas.append(foreign.mean())
        assert np.array_equal(image[foreign], PIXELS[other][foreign])
        rows, columns = np.flatnonzero(foreign.any(1)), np.flatnonzero(foreign.any(0))
        assert foreign.sum() == len(rows) * len(columns), "a box"
    assert max(areas) > 0.1
    with pytest.raises(InputError, match="mixing takes two"):
        mix_images("cutmix", PIXELS[:1], RECORDS[:1], 0)


def test_treated_sets_through_the_stage(
    workspace: Path, stage: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    edit_params(workspace / "params.yaml", **{"calibrate.count": 12})
    assert stage("prompts", "mixup") == 0
    assert stage("synthesize", "mixup") == 0
    originals = {sample.key: sample for sample in synthetic(workspace / "data/synthetic/mixup")}
    for treatment, model in (("filtered", "resnet"), ("filtered", "vit"), ("image-mixup", "vit")):
        edit_params(workspace / "params.yaml", **{"treatments.filtered.duplicate_similarity": 1.0})
        assert stage("treat", "mixup", treatment, model) == 0
        name, size = f"mixup-{treatment}-{model}", 32 if model == "resnet" else 16
        folder, preview = workspace / "data/calibration" / name, workspace / "data/preview" / name
        table = pd.read_csv(folder / "samples.csv", keep_default_na=False)
        images, dropped = np.load(folder / "images.npy"), np.load(folder / "dropped.npy")
        assert list(table) == ["key", "classes", "prompt", "scores", "kept", "reason"]
        assert len(table) == 24, "every image that was looked at has a row"
        assert images.shape == (12, size, size, 3)
        assert dropped.shape == (12, size, size, 3)
        assert table["kept"].sum() == 12
        score = {"resnet": "batch_norm", "vit": "patch_entropy"}[model]
        for scores in table["scores"].map(json.loads):
            assert {"energy", score} <= set(scores) <= {"energy", score, "pixel_deviation"}
        left_out = table.loc[~table["kept"], "reason"].value_counts().to_dict()
        assert read_json(preview / "summary.json") == {"images": 12, "left_out": left_out}
        assert read_json(workspace / f"data/provenance/treat/{name}.json")["left_out"] == left_out
        assert list(pd.read_csv(preview / "samples.csv")["key"]) == [
            *table.loc[table["kept"], "key"],
            *table.loc[~table["kept"], "key"],
        ]
        if treatment == "filtered":
            assert left_out["energy"] == 2, "a tenth of 24"
            assert "class balance" in left_out
            transform = resize_and_crop({"input_size": [3, size, size], "interpolation": "bicubic", "crop_pct": 1.0})
            for pixels, kept in ((images, True), (dropped, False)):
                keys = table.loc[table["kept"] == kept, "key"]
                for image, key in zip(pixels, keys, strict=True):
                    assert np.array_equal(image, transform(originals[key].image))
        else:
            assert left_out == {"surplus": 12}
            assert table["key"].str.contains(r"^mixup-\d+\+mixup-\d+$").all()
    edit_params(workspace / "params.yaml", **{"calibrate.count": 24})
    capsys.readouterr()
    assert stage("treat", "mixup", "filtered", "vit") == 2
    said = capsys.readouterr().err
    assert "found 2" in said
    assert "usable" in said
