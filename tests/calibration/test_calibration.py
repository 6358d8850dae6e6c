"""Calibration sets from every source, at each network's own input size."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.artifacts.records import read_json
from pipeline_lib.calibration.assemble import assemble
from pipeline_lib.calibration.preview import write_preview
from pipeline_lib.calibration.sources import noise, pictures
from pipeline_lib.errors import InputError
from pipeline_lib.models.card import resolve_data_config
from tests.artifacts.test_tars import write_tar
from tests.conftest import edit_params
from tests.pictures.writing import png, shows


def test_sources_and_sizes(workspace: Path, stage: Callable[..., int]) -> None:
    assert stage("prompts", "mixup") == 0
    assert stage("synthesize", "mixup") == 0
    for source, kind in (("mixup", "rendered"), ("noise", "noise"), ("real", "real")):
        for model, size in (("resnet", 32), ("vit", 16)):
            assert stage("calibrate", source, model, "--images", kind) == 0
            folder = workspace / f"data/calibration/{source}-{model}"
            images = np.load(folder / "images.npy", mmap_mode="r")
            assert images.dtype == np.uint8
            assert images.shape == (24, size, size, 3)
            table = pd.read_csv(folder / "samples.csv")
            assert list(table) == ["key", "classes", "prompt", "scores", "kept", "reason"]
            assert table["kept"].all()
            assert len(table) == 24
            preview = workspace / f"data/preview/{source}-{model}"
            assert np.array_equal(np.load(preview / "images.npy"), images[:16])
            assert np.load(preview / "dropped.npy").shape == (0, size, size, 3)
            assert list(pd.read_csv(preview / "samples.csv")["key"]) == list(table["key"][:16])
            assert read_json(preview / "summary.json") == {"images": 24, "left_out": {}}


def test_blank_images_keep_their_row_and_lose_their_place(workspace: Path, stage: Callable[..., int]) -> None:
    edit_params(workspace / "params.yaml", **{"calibrate.count": 12})
    assert stage("prompts", "single") == 0
    assert stage("synthesize", "single") == 0
    from pipeline_lib.calibration.sources import synthetic

    samples = list(synthetic(workspace / "data/synthetic/single"))
    for sample in samples[::2]:
        sample.record["defect"] = "blank"
    config = resolve_data_config(workspace / "world/classifiers/vit")
    facts = assemble(samples, 12, config, workspace / "out")
    table = pd.read_csv(workspace / "out/samples.csv")
    write_preview(workspace / "out", 4, workspace / "preview")
    assert read_json(workspace / "preview/summary.json") == {"images": 12, "left_out": {"blank": 12}}
    shown = pd.read_csv(workspace / "preview/samples.csv")
    assert list(shown["kept"]) == [True] * 4 + [False] * 12, "the images, then those that were left out"
    assert list(shown["key"][4:]) == [sample.key for sample in samples[::2]]
    dropped = np.load(workspace / "preview/dropped.npy")
    assert dropped.shape == (12, 16, 16, 3)
    assert np.array_equal(dropped[0], np.asarray(samples[0].image))
    assert facts == {"images": 12, "defective_images_left_out": 12}
    assert table["kept"].sum() == 12
    assert set(table.loc[~table["kept"], "reason"]) == {"blank"}


def test_noise_is_standard_normal_for_the_network_and_seeded() -> None:
    config = {"input_size": [3, 32, 32], "mean": [0.5, 0.4, 0.3], "std": [0.1, 0.1, 0.1]}
    images = np.stack([np.asarray(s.image) for s in noise(32, 0, config)])
    normalised = (images / 255 - np.array(config["mean"])) / np.array(config["std"])
    assert abs(normalised.mean()) < 0.02
    assert abs(normalised.std() - 1) < 0.02
    again = np.stack([np.asarray(s.image) for s in noise(8, 0, config)])
    assert np.array_equal(again, images[:8]), "a shorter set is the beginning of a longer one"
    assert not np.array_equal(images[0], np.asarray(next(noise(1, 1, config)).image))


def test_real_pictures_of_a_folder_or_of_tars_are_drawn_by_key(tmp_path: Path) -> None:
    files = {f"{label}/{number}.png": png(label) for label in range(8) for number in range(10)}
    for name, content in files.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    (tmp_path / "folder/0/notes.txt").write_text("x")
    (tmp_path / "tars").mkdir()
    members: dict[str, bytes] = {}
    for name, content in files.items():
        members |= {f"{name[:-4]}.cls": b"3", name: content}
    write_tar(tmp_path / "tars/0.tar", members)
    for path, named in ((tmp_path / "folder", files), (tmp_path / "tars", [name[:-4] for name in files])):
        keys = [sample.key for sample in islice(pictures(path, 0), 20)]
        assert set(keys) <= set(named)
        assert len({key[0] for key in keys}) >= 6, "of most classes, though they are sorted"
        assert keys != [sample.key for sample in islice(pictures(path, 1), 20)]
        assert all(shows(sample.image, int(sample.key[0])) for sample in islice(pictures(path, 0), 20))
    assert next(pictures(tmp_path / "tars/0.tar", 0)).record["classes"] == [], "whose classes these are, nobody said"


def test_real_shards_keep_their_classes_and_are_checked(world: Path, tmp_path: Path) -> None:
    samples = list(pictures(world / "real.tar", 0))
    assert {sample.key: sample.record["classes"] for sample in samples}["real-000013"] == [3]
    tar = bytearray((world / "real.tar").read_bytes())
    tar[tar.index(b"IDAT") + 9] ^= 1
    (tmp_path / "real.tar").write_bytes(tar)
    with pytest.raises(InputError, match="was altered") as error:
        list(pictures(tmp_path / "real.tar", 0))
    assert "delete" not in str(error.value)


def test_no_real_pictures(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: expected a folder of pictures, or WebDataset tars, found nothing"):
        next(pictures(tmp_path / "absent", 0))
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"no pictures; expected some of .*skipped: 1 \.txt"):
        next(pictures(tmp_path, 0))
