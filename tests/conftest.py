"""A tiny real world: a diffusers pipeline, timm classifiers and labelled images with random content."""

import gzip
import hashlib
import importlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]

CLASSIFIERS = {  # timm's name, arguments, image size
    "resnet": ("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}, 32),
    "vit": (
        "vit_tiny_patch16_224",
        {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0},
        16,
    ),
}
MORE_CLASSIFIERS = {  # for single tests
    "poolformer": ("poolformer_s12", {}, 32),
    "efficientformer": (
        "efficientformer_l1",
        {"depths": [1, 1, 1, 2], "embed_dims": [8, 16, 24, 32], "num_vit": 1},
        224,
    ),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4]},
        32,
    ),
}


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.asarray(array.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0))


def make_classifier(folder: Path, name: str) -> None:
    import timm
    import torch
    from safetensors.torch import save_file

    timm_name, arguments, size = {**CLASSIFIERS, **MORE_CLASSIFIERS}[name]
    torch.manual_seed(0)
    network = timm.create_model(timm_name, num_classes=10, **arguments)
    folder.mkdir(parents=True)
    save_file(network.state_dict(), folder / "model.safetensors")
    preprocessing = {
        "input_size": [3, size, size],
        "interpolation": "bicubic",
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "crop_pct": 1.0,
        "crop_mode": "center",
    }
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    card = {"timm": timm_name, "arguments": arguments, "num_classes": 10, "preprocessing": preprocessing}
    (folder / "model.json").write_text(json.dumps({**card, "sha256": digest}))


def make_generator(folder: Path) -> None:
    """A StableDiffusionPipeline of the shipped tokenizer's vocabulary with random weights."""
    import torch
    from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    tokenizer = CLIPTokenizer(
        vocab={t: i for i, t in enumerate(["a</w>", "b</w>", "<|startoftext|>", "<|endoftext|>"])},
        merges=[],
        model_max_length=77,
    )
    text = CLIPTextConfig(
        vocab_size=4,
        hidden_size=16,
        intermediate_size=16,
        projection_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=3,
    )
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            norm_num_groups=4,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=2,
            norm_num_groups=4,
            down_block_types=("CrossAttnDownBlock2D",) * 2,
            up_block_types=("CrossAttnUpBlock2D",) * 2,
        ),
        scheduler=DPMSolverMultistepScheduler(steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)


def tiny_params() -> dict:
    """The default params.yaml, shrunk."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for recipe in params["prompts"].values():
        recipe["count"] = 24
    params["synthesize"].update(
        steps=2, image_size=16, batch_size=4, shard_size=4, blank_deviation=0.0, max_bad_fraction=1.0
    )
    params["calibrate"].update(count=24, preview=16)
    params["distil"].update(iterations=3, batch_size=16)
    params["reconstruct"].update(held_out=8, range_images=16, batch_size=8)
    for method in params["methods"].values():
        method.update(iterations=4, tune_iterations=2)
    params["evaluate"].update(fraction=1.0, batch_size=20)
    params["report"].update(samples=4)
    params["task"].update(
        generator="world/generator",
        classifiers="world/classifiers",
        labelled="world/test",
        real="world/real.tar",
    )
    return params


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only; `workspace` holds a copy."""
    from PIL import Image

    from pipeline_lib.artifacts.shards import pack_shard

    folder = tmp_path_factory.mktemp("shared") / "world"
    for name in CLASSIFIERS:
        make_classifier(folder / "classifiers" / name, name)
    make_generator(folder / "generator")
    rng = np.random.default_rng(0)
    (folder / "test").mkdir()
    write_idx(folder / "test/images-idx3-ubyte.gz", rng.integers(0, 256, (40, 28, 28)))
    write_idx(folder / "test/labels-idx1-ubyte.gz", np.arange(40) % 10)
    pictures = rng.integers(0, 256, (24, 32, 32), dtype=np.uint8)
    samples = [(Image.fromarray(p), {"key": f"real-{i:06d}", "classes": [i % 10]}) for i, p in enumerate(pictures)]
    (folder / "real.tar").write_bytes(pack_shard(samples))
    return folder


@pytest.fixture
def workspace(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with params.yaml, the class list and the tiny world."""
    shutil.copytree(world, tmp_path / "world")
    (tmp_path / "data/fashion").mkdir(parents=True)
    shutil.copy(ROOT / "data/fashion/classes.csv", tmp_path / "data/fashion")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tiny_params()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a stage's real command line in this process; returns its exit code."""
    from pipeline_lib.command import run

    def run_stage(name: str, *arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(SystemExit) as end:
            run(importlib.import_module(f"stages.{name}").main)
        return int(end.value.code or 0)

    return run_stage


def edit_params(path: Path, **changes: object) -> None:
    """`edit_params(path, **{"synthesize.steps": 3})`."""
    params = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        *parents, last = key.split(".")
        section = params
        for parent in parents:
            section = section[parent]
        section[last] = value
    path.write_text(yaml.safe_dump(params))
