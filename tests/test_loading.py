"""A checkpoint in somebody else's program: installed with pip, from another folder, with nothing but its own files."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline_lib.errors import InputError
from pipeline_lib.loading import load
from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.models.preprocessing import resize_and_crop
from pipeline_lib.quantization.checkpoint import load_quantized
from tests.conftest import ROOT

SCRIPT = """
import sys
from PIL import Image
from pipeline_lib.loading import load

network, transform, names = load(sys.argv[1])
print(names[network(transform(Image.open(sys.argv[2]))[None]).argmax()])
"""


@pytest.fixture
def checkpoint(workspace: Path, stage: Callable[..., int]) -> Path:
    assert stage("calibrate", "noise", "resnet", "--images", "noise") == 0
    assert stage("reconstruct", "noise", "resnet", "w4a4") == 0
    return workspace / "data/quantized/noise-resnet-w4a4"


def picture(path: Path) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return Image.open(path)


def expected_logits(folder: Path, image: Image.Image) -> torch.Tensor:
    classifier = load_quantized(folder)
    pixels = resize_and_crop(classifier.data_config)(image)
    return classifier.network(Normaliser(classifier.data_config, torch.device("cpu"))(pixels[None]))


def test_what_is_loaded_computes_what_was_evaluated(checkpoint: Path, tmp_path: Path) -> None:
    image = picture(tmp_path / "picture.png")
    network, transform, names = load(checkpoint)
    assert names == ["t-shirt", *load(str(checkpoint)).class_names[1:]] and len(names) == 10
    assert transform(image).shape == (3, 32, 32)
    assert torch.allclose(network(transform(image)[None]), expected_logits(checkpoint, image), atol=1e-5)


def test_an_edited_class_name_finds_the_finished_work(
    checkpoint: Path, workspace: Path, stage: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {file.name: file.read_bytes() for file in checkpoint.iterdir()}
    kept = {file: file.stat().st_ino for file in workspace.glob(".work/reconstruct/*/units/*.safetensors")}
    classes = workspace / "data/fashion/classes.csv"
    classes.write_text(classes.read_text().replace("sneaker,", "trainer,"))
    assert stage("reconstruct", "noise", "resnet", "w4a4") == 0
    after = {file.name: file.read_bytes() for file in checkpoint.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"classes.csv"}
    assert kept and {file: file.stat().st_ino for file in kept} == kept
    assert "trainer" in load(checkpoint).class_names
    classes.write_text("\n".join(classes.read_text().splitlines()[:-1]) + "\n")
    assert stage("reconstruct", "noise", "resnet", "w4a4") == 2
    assert "a network of 10 classes, but `task.classes` lists 9" in capsys.readouterr().err


def test_what_is_no_whole_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    for name, content in [
        ("classes.csv", None),
        ("classes.csv", "index,name,definition\n0,one,\n"),
        ("model.safetensors", None),
        ("model.safetensors", "short"),
        ("quantization.json", None),
        ("quantization.json", '{"format": 2}'),
    ]:
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(checkpoint, folder)
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_text(content)
        with pytest.raises(InputError, match=name) as refused:
            load(folder)
        assert "\n" not in str(refused.value)


def test_installed_with_pip_and_from_another_folder(checkpoint: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "pipeline_lib", source / "pipeline_lib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    subprocess.run([*pip, "-w", tmp_path / "wheels", source], check=True)
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("pipeline_lib/")}
        (metadata,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        assert "Requires-Dist: timm<1.1,>=1.0.31" in archive.read(metadata).decode()
        archive.extractall(tmp_path / "site")
    ours = {str(file.relative_to(source)) for file in (source / "pipeline_lib").rglob("*") if file.is_file()}
    assert packed == ours

    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(checkpoint, elsewhere / "checkpoint")
    image = picture(elsewhere / "picture.png")
    script = elsewhere / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, script, "checkpoint", "picture.png"]
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    best = expected_logits(checkpoint, image).argmax()
    assert done.stdout.strip() == load(checkpoint).class_names[best]
