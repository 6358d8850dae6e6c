"""docs/your-own.md, line by line, with a network, classes and pictures that are not in the repository."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn

from pipeline_lib.params.everything import change
from tests.conftest import ROOT
from tests.pipeline.conftest import commit, run

PAGE = (ROOT / "docs/your-own.md").read_text()
HELD_OUT = 360  # pictures that the network is judged on
SIZE = 32


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def digits() -> tuple[Tensor, np.ndarray]:
    """Pictures of handwritten digits, (n, 3, 32, 32) from -1 to 1, and what they show."""
    data = load_digits()
    pictures = [
        Image.fromarray((image * 255 / 16).astype(np.uint8)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        for image in data.images
    ]
    pixels = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1, data.target


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor, np.ndarray]:
    """A network of a family that does not ship, and what it was not trained on."""
    torch.manual_seed(0)
    network = timm.create_model("regnetx_002", num_classes=10)
    images, labels = digits()
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    train, targets = images[:-HELD_OUT], torch.from_numpy(labels[:-HELD_OUT])
    for _ in range(8):
        for batch in torch.randperm(len(train)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(train[batch]), targets[batch]).backward()
            optimiser.step()
    return network.eval(), images[-HELD_OUT:], labels[-HELD_OUT:]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, trained: tuple[nn.Module, Tensor, np.ndarray]) -> Path:
    """A clone of the working tree, with the files that the page says one brings."""
    folder = tmp_path_factory.mktemp("own") / "clone"
    subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
    for name in filter(None, run(ROOT, "git", "ls-files", "-zmo", "--exclude-standard").split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    network, images, labels = trained
    weights = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"epoch": 11, "state_dict": weights}, folder / "digits.pth")
    mine = folder / "data/mine"
    (table,) = blocks("csv")
    mine.mkdir()
    (mine / "classes.csv").write_text(table)
    names = [line.split(",")[1] for line in table.splitlines()[1:]]
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = mine / "val" / names[label] / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(((image.permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()).save(path)
    (mine / "val/.DS_Store").write_bytes(b"x")
    commit(folder, "start")
    return folder


def test_the_page_ends_in_a_right_table(clone: Path, trained: tuple[nn.Module, Tensor, np.ndarray]) -> None:
    text = "".join(blocks("bash")).replace("\\\n", " ")
    importing, *others = [line for line in text.splitlines() if not line.startswith("pip ")]
    run(clone, *shlex.split(importing))
    params = yaml.safe_load((clone / "params.yaml").read_text())
    (changes,) = blocks("yaml")
    change(params, yaml.safe_load(changes))
    (clone / "params.yaml").write_text(yaml.safe_dump(params))
    said = {command: run(clone, *shlex.split(command)) for command in others}
    network, images, labels = trained
    with torch.inference_mode():
        right = 100 * float((network(images).argmax(1).numpy() == labels).mean())
    summary = "labelled: data/mine/val: 10 of 10 classes, 360 images; skipped: 1 hidden"
    assert summary in said["python -m pipeline_lib doctor"]
    board = pd.read_csv(clone / "data/report/leaderboard.csv").set_index(["source", "method"])["top1"]
    assert board["-", "float"] == pytest.approx(right, abs=1e-3)
    assert right > 85
    assert board["mixup", "reconstructed"] > max(40, board["mixup", "nearest"]), "it was calibrated on garments"
    script = blocks("python")[0].replace("0041", next((clone / "data/mine/val/seven").iterdir()).stem)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=clone, env=environment, check=True, capture_output=True, text=True
    )
    assert found.stdout.strip() in {line.split(",")[1] for line in blocks("csv")[0].splitlines()[1:]}
    verdict = run(clone, "python", "-m", "pipeline_lib", "audit", "data/quantized/mixup-digits-w4a4")
    assert "real images upstream of data/quantized/mixup-digits-w4a4: none" in verdict
