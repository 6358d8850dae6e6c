"""Other pipelines by params alone, embeddings instead of text, and what a pipeline cannot do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from pipeline_lib.errors import InputError
from pipeline_lib.params.base import read
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.synthesis.check_generator import check_generator
from pipeline_lib.synthesis.defects import defect
from pipeline_lib.synthesis.generator import Generator, Picture

FOLDER = Path("world/generator")
CPU = torch.device("cpu")
torch.set_num_threads(1)  # as workers have


def sample(number: int = 0, **fields: Any) -> dict[str, Any]:
    row = {"key": f"k{number}", "prompt": "a b", "negative_prompt": "", "weights": [0.5, 0.5], "seed": number}
    return {**row, **fields}


def generator(folder: Path = FOLDER, **changes: object) -> Generator:
    return Generator(folder, read(Synthesize, "synthesize").model_copy(update=changes), CPU)


def pixels(made: Generator, *samples: dict[str, Any]) -> list[np.ndarray]:
    return [picture.pixels for picture in made.render(samples, made.embed(samples))]


@pytest.mark.usefixtures("workspace")
def test_embeddings_give_the_images_of_the_plain_pipeline() -> None:
    made, samples = generator(guidance_scale=3.0), [sample(0), sample(1, prompt="b", negative_prompt="a")]
    plain = DiffusionPipeline.from_pretrained(FOLDER)
    plain.set_progress_bar_config(disable=True)
    p = read(Synthesize, "synthesize")
    expected = plain(
        prompt=["a b", "b"],
        negative_prompt=["", "a"],
        num_inference_steps=p.steps,
        guidance_scale=3.0,
        height=p.image_size,
        width=p.image_size,
        generator=[torch.Generator().manual_seed(s["seed"]) for s in samples],
    ).images
    for ours, theirs in zip(pixels(made, *samples), expected, strict=True):
        assert np.abs(ours.astype(int) - np.asarray(theirs).astype(int)).max() <= 1


@pytest.mark.usefixtures("workspace")
def test_mixed_embeddings_lie_between_those_of_the_parts() -> None:
    made = generator(steps=4)
    alone = [pixels(made, sample(prompt=text))[0] for text in ("a", "b")]
    assert (alone[0] != alone[1]).any()
    for weights, expected in (([1.0, 0.0], alone[0]), ([0.0, 1.0], alone[1])):
        assert (pixels(made, sample(parts=["a", "b"], weights=weights))[0] == expected).all()
    texts = made.embed([sample(prompt="a"), sample(prompt="b")])
    mixed = made._conditions([sample(parts=["a", "b"], weights=[0.25, 0.75])], texts)["prompt_embeds"][0]
    torch.testing.assert_close(mixed, 0.25 * texts["a"][0] + 0.75 * texts["b"][0])


@pytest.mark.usefixtures("workspace")
def test_a_text_is_encoded_once() -> None:
    made, encoded = generator(guidance_scale=2.0), []
    made._pipeline.text_encoder.register_forward_hook(
        lambda _, inputs, named, output: encoded.append(len(output[0])), with_kwargs=True
    )
    samples = [sample(i, prompt="ab"[i % 2]) for i in range(8)]
    embeddings = made.embed(samples)
    made.render(samples[:4], embeddings)
    made.render(samples[4:], embeddings)
    assert encoded == [2, 1, 1], "both prompts; a prompt with the empty negative one, once a run"


@pytest.fixture
def xl(workspace: Path) -> Path:
    """A StableDiffusionXLPipeline of one text encoder, as few-step generators are."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    plain = DiffusionPipeline.from_pretrained(FOLDER)
    torch.manual_seed(0)
    config = CLIPTextConfig(**{**plain.text_encoder.config.to_dict(), "projection_dim": 16})
    unet = dict(plain.unet.config) | {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 16 + 6 * 8,
    }
    StableDiffusionXLPipeline(
        vae=plain.vae,
        text_encoder=None,
        text_encoder_2=CLIPTextModelWithProjection(config),
        tokenizer=None,
        tokenizer_2=plain.tokenizer,
        unet=UNet2DConditionModel.from_config(unet),
        scheduler=plain.scheduler,
    ).save_pretrained(workspace / "xl")
    return workspace / "xl"


@pytest.fixture
def lcm(workspace: Path) -> Path:
    plain = DiffusionPipeline.from_pretrained(FOLDER)
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config(dict(plain.unet.config) | {"time_cond_proj_dim": 8})
    parts = {name: getattr(plain, name) for name in ("vae", "text_encoder", "tokenizer")}
    LatentConsistencyModelPipeline(
        **parts,
        unet=unet,
        scheduler=LCMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(workspace / "lcm")
    return workspace / "lcm"


@pytest.fixture
def flux(workspace: Path) -> Path:
    """A FluxPipeline: flow matching, a transformer over patches of latents, and text encoders of two makes."""
    from transformers import CLIPTextModel, T5Config, T5EncoderModel

    torch.manual_seed(0)
    plain = DiffusionPipeline.from_pretrained(FOLDER)
    t5 = T5Config(vocab_size=4, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKL.from_config(dict(plain.vae.config) | {"shift_factor": 0.0}),
        text_encoder=CLIPTextModel(plain.text_encoder.config),
        tokenizer=plain.tokenizer,
        text_encoder_2=T5EncoderModel(t5),
        tokenizer_2=plain.tokenizer,
        transformer=FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            pooled_projection_dim=16,
            axes_dims_rope=(4, 4, 8),
        ),
    ).save_pretrained(workspace / "flux")
    return workspace / "flux"


def test_a_generator_whose_embeddings_are_of_another_make(flux: Path) -> None:
    made = generator(flux, guidance_scale=3.0)
    one, other = pixels(made, sample(0), sample(1, prompt="b"))
    assert one.shape == (16, 16, 3) and (one != other).any()
    with pytest.raises(InputError, match="FluxPipeline takes no embeddings; set the recipe's `fusion` to text"):
        made.embed([sample(parts=["a", "b"])])
    assert check_generator(flux, read(Synthesize, "synthesize"))


def test_few_step_generators(xl: Path, lcm: Path) -> None:
    for folder in (xl, lcm):
        assert check_generator(folder, read(Synthesize, "synthesize"))
    for folder, params in ((xl, {"steps": 1, "guidance_scale": 0.0}), (lcm, {"steps": 4, "guidance_scale": 8.0})):
        made = generator(folder, **params)
        one, other = pixels(made, sample(0), sample(1))
        assert one.shape == (16, 16, 3)
        assert (one != other).any()
        (mixed,) = pixels(made, sample(parts=["a", "b"], weights=[0.3, 0.7]))
        assert (mixed != one).any()
    guided = pixels(generator(xl, guidance_scale=3.0), sample(negative_prompt="b"), sample())
    assert (guided[0] != guided[1]).any()


def test_what_a_pipeline_cannot_do(lcm: Path) -> None:
    with pytest.raises(InputError, match="LatentConsistencyModelPipeline takes no negative prompt"):
        generator(lcm).embed([sample(negative_prompt="b")])
    with pytest.raises(InputError, match="no effect without guidance"):
        generator(guidance_scale=1.0).embed([sample(negative_prompt="b")])
    with pytest.raises(InputError, match="has none; set it to false"):
        generator(safety_checker=True)


def test_broken_weights_give_images_that_are_not_numbers(workspace: Path) -> None:
    shutil.copytree(FOLDER, "broken")
    plain = DiffusionPipeline.from_pretrained("broken")
    torch.nn.init.constant_(plain.unet.conv_out.weight, torch.nan)
    plain.unet.save_pretrained("broken/unet")
    made = generator(Path("broken"))
    (picture,) = made.render([sample()], made.embed([sample()]))
    assert defect(picture, 0.0) == "nan"
    assert not picture.pixels.any()


def test_defects_by_name() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    flat = np.full_like(noise, 7)
    assert defect(Picture(noise, False, False), 2.0) == ""
    assert defect(Picture(noise, False, False), 200.0) == "blank"
    assert defect(Picture(flat, False, False), 0.0) == "constant"
    assert defect(Picture(flat, False, True), 0.0) == "unsafe"
    assert defect(Picture(flat, True, True), 0.0) == "nan"


@pytest.mark.slow
@pytest.mark.usefixtures("workspace")
def test_compiled_denoiser() -> None:
    plain, compiled = (pixels(generator(compile=flag), sample())[0] for flag in (False, True))
    assert np.abs(plain.astype(int) - compiled.astype(int)).max() <= 1


def test_recipe_of_mixed_embeddings_through_the_stages(workspace: Path, stage: Callable[..., int]) -> None:
    from tests.conftest import edit_params

    edit_params(workspace / "params.yaml", **{"prompts.mixup.fusion": "embedding", "prompts.mixup.templates": ["{}"]})
    assert stage("prompts", "mixup") == 0
    assert stage("synthesize", "mixup") == 0
    rows = [json.loads(line) for line in Path("data/synthetic/mixup/index.jsonl").read_text().splitlines()]
    assert all(len(row["parts"]) == 2 and row["fusion"] == "embedding" for row in rows)
    assert all(sum(row["weights"]) == pytest.approx(1) for row in rows)
    assert len({row["weights"][0] for row in rows}) == len(rows)
