"""A generator that will not load, or not render what params ask for, is refused from its configuration alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from pipeline_lib.errors import InputError
from pipeline_lib.params.base import read
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.synthesis.check_generator import check_generator
from pipeline_lib.synthesis.generator import Generator, load_pipeline
from tests.conftest import ROOT

FOLDER = Path("world/generator")
UNET = FOLDER / "unet/diffusion_pytorch_model.safetensors"
CPU = torch.device("cpu")


def params(**changes: object) -> Synthesize:
    return read(Synthesize, "synthesize").model_copy(update=changes)


def edit(file: str, **changes: Any) -> None:
    path = FOLDER / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(said: str, **changes: object) -> None:
    """By the check, and in one line."""
    with pytest.raises(InputError, match=said) as found:
        check_generator(FOLDER, params(**changes))
    assert "\n" not in str(found.value)


def refused_by_both(said: str, **changes: object) -> None:
    refused(said, **changes)
    with pytest.raises(InputError) as found:
        load_pipeline(FOLDER, params(**changes), CPU)
    assert "\n" not in str(found.value)


pytestmark = pytest.mark.usefixtures("workspace")


def test_facts() -> None:
    first, second = check_generator(FOLDER, params())
    assert first == "StableDiffusionPipeline of text_encoder, unet, vae"
    assert second == "images of 16 pixels a side"
    assert "it was trained on 16" in check_generator(FOLDER, params(image_size=24))[1]
    assert len(check_generator(ROOT / "data/fashion/generator", params(image_size=32))) == 2


def test_a_pipeline_on_the_hub_is_not_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pointer = tmp_path / "pointer"
    pointer.mkdir()
    (pointer / "hub.json").write_text(json.dumps({"repository": "someone/something", "revision": "0" * 40}))
    cache = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    (fact,) = check_generator(pointer, params())
    assert fact.startswith("someone/something at 000000000000: not in the hub's cache; it is downloaded when")
    shutil.copytree(FOLDER, cache / "models--someone--something/snapshots" / ("0" * 40))
    assert check_generator(pointer, params())[0] == "StableDiffusionPipeline of text_encoder, unet, vae"
    with pytest.raises(InputError, match="renders multiples of 8, such as 16"):
        check_generator(pointer, params(image_size=20))


def test_a_safety_checker_that_is_not_run_may_be_absent() -> None:
    edit(
        "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
        requires_safety_checker=True,
    )
    assert check_generator(FOLDER, params())
    made = Generator(FOLDER, params(), CPU)
    sample = {"prompt": "a b", "negative_prompt": "", "weights": [1.0], "seed": 0}
    assert not made.render([sample], made.embed([sample]))[0].unsafe
    refused_by_both("`synthesize.safety_checker` is true, but world/generator has none", safety_checker=True)


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_absent_components(component: str) -> None:
    shutil.rmtree(FOLDER / component)
    refused_by_both(f"model_index.json names {component}/, which is absent")


@pytest.mark.parametrize("file", ["unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"])
def test_absent_configurations(file: str) -> None:
    (FOLDER / file).unlink()
    refused_by_both(f"{file} is absent")


def as_half(component: str, file: str) -> None:
    path = FOLDER / component / f"{file}.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path.with_suffix(".fp16.safetensors"))
    path.unlink()


def test_weights_of_half_precision_alone() -> None:
    as_half("unet", "diffusion_pytorch_model")
    refused_by_both("unet/ has weights of half precision alone .* set it to float16")
    assert "half precision" in check_generator(FOLDER, params(dtype="float16"))[0]
    one = load_pipeline(FOLDER, params(dtype="float16"), CPU)  # the other networks have the usual files
    assert one.unet.dtype == one.vae.dtype == torch.float16
    as_half("text_encoder", "model")
    as_half("vae", "diffusion_pytorch_model")
    assert load_pipeline(FOLDER, params(dtype="float16"), CPU).text_encoder.dtype == torch.float16


def test_pickled_weights_are_told_how_to_be_converted() -> None:
    torch.save(load_file(UNET), UNET.with_suffix(".bin"))
    UNET.unlink()
    refused_by_both("expected .*safetensors, found diffusion_pytorch_model.bin; `python -c .* converts them")
    DiffusionPipeline.from_pretrained(FOLDER).save_pretrained(f"{FOLDER}-safetensors")
    assert check_generator(Path(f"{FOLDER}-safetensors"), params())


def test_weights_in_parts() -> None:
    UNET.rename(UNET.with_name("diffusion_pytorch_model-00001-of-00002.safetensors"))
    refused_by_both("unet/ has 1 of 2 files of weights")


@pytest.mark.parametrize(
    "damage",
    [lambda whole: b"", lambda whole: whole[:100], lambda whole: whole[:-8], lambda whole: b"<html>not found</html>"],
)
def test_damaged_weights(damage: Callable[[bytes], bytes]) -> None:
    UNET.write_bytes(damage(UNET.read_bytes()))
    refused_by_both("unet/diffusion_pytorch_model.safetensors: damaged weights, .*; copy the file anew")


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
def test_weights_that_lack_some_of_the_network(component: str) -> None:
    """The libraries draw what is absent at random, and say so in a log alone."""
    (path,) = (FOLDER / component).glob("*.safetensors")
    weights = load_file(path)
    del weights[next(name for name in sorted(weights) if name.endswith("bias"))]
    save_file(weights, path)
    with pytest.raises(InputError, match=f"weights in {component}/ have .* the network of its config") as found:
        load_pipeline(FOLDER, params(), CPU)
    assert "\n" not in str(found.value)
    save_file({}, path)
    refused_by_both("a file without tensors")


@pytest.mark.parametrize("file", ["unet/config.json", "scheduler/scheduler_config.json", "model_index.json"])
def test_configurations_that_are_not_json(file: str) -> None:
    (FOLDER / file).write_text("{")
    refused_by_both("not JSON")


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        (
            "unet/config.json",
            {"patch_size": 0},
            "`patch_size` in unet/config.json .* from 1 to 65536, found 0",
        ),
        ("unet/config.json", {"patch_size": -2}, "found -2"),
        ("unet/config.json", {"patch_size": 10**400}, "`patch_size` .* found 1000"),
        ("unet/config.json", {"patch_size": "2"}, "found '2'"),
        ("unet/config.json", {"sample_size": 0}, "expected `sample_size` in unet/config.json"),
        ("unet/config.json", {"sample_size": 10**400}, "expected `sample_size` in unet/config.json"),
        ("vae/config.json", {"latent_channels": "4"}, "expected `latent_channels` in vae/config.json"),
        ("vae/config.json", {"block_out_channels": [1] * 5000}, "at most 16 blocks in vae/config.json, found 5000"),
    ],
)
def test_numbers_of_a_configuration_that_are_out_of_range(file: str, changes: dict[str, Any], said: str) -> None:
    edit(file, **changes)
    with pytest.raises(InputError, match=said) as found:
        check_generator(FOLDER, params())
    assert "\n" not in str(found.value) and len(str(found.value)) < 400


@pytest.mark.parametrize("value", [None, [8, 8]])
def test_numbers_of_a_configuration_that_are_not_there(value: object) -> None:
    edit("unet/config.json", sample_size=value, patch_size=value)
    assert check_generator(FOLDER, params())[1] == "images of 16 pixels a side"
    edit("vae/config.json", latent_channels=None)
    assert check_generator(FOLDER, params())


def test_no_scheduler_to_replace() -> None:
    edit("model_index.json", scheduler=[None, None])
    refused("names no `scheduler` of diffusers", scheduler="DDIMScheduler")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unet": ["diffusers", "UNet3000"]}, "names unet as UNet3000, which diffusers does not have"),
        ({"text_encoder": ["transformers", "Unknown"]}, "as Unknown, which transformers does not have"),
        ({"_class_name": "NoPipeline"}, "names the pipeline NoPipeline, which diffusers .* does not have"),
        ({"_class_name": None}, "expected the name of a pipeline"),
        ({"vae": "AutoencoderKL", "unet": ["diffusers"]}, "expected `unet` to be .library, class."),
    ],
)
def test_unknown_classes(changes: dict[str, Any], said: str) -> None:
    edit("model_index.json", **changes)
    refused_by_both(said)


@pytest.mark.parametrize("name", ["StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline", "DDPMPipeline"])
def test_pipelines_of_another_task(name: str) -> None:
    edit("model_index.json", _class_name=name)
    refused(f"expected a pipeline that renders images from prompts, found {name}")


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DDIMScheduler", "LCMScheduler", "TCDScheduler"])
def test_schedulers_that_fit(name: str) -> None:
    assert check_generator(FOLDER, params(scheduler=name))
    assert type(load_pipeline(FOLDER, params(scheduler=name), CPU).scheduler).__name__ == name


@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "VQDiffusionScheduler", "KarrasVeScheduler"])
def test_schedulers_that_would_give_noise(name: str) -> None:
    refused_by_both(f"is {name}, which does not fit .* expected `default` or one of DDIM", scheduler=name)


@pytest.mark.parametrize("name", ["NoScheduler", "AutoencoderKL", "DPMSolverSDEScheduler", "__name__", "utils", ""])
def test_schedulers_that_there_are_not(name: str) -> None:
    refused_by_both("expected `default` or a scheduler class of diffusers", scheduler=name)


def test_a_generator_of_flow_matching_needs_a_scheduler_of_its_kind() -> None:
    config = json.loads((FOLDER / "scheduler/scheduler_config.json").read_text())
    edit("scheduler/scheduler_config.json", use_flow_sigmas=True, prediction_type="flow_prediction")
    assert check_generator(FOLDER, params(scheduler="UniPCMultistepScheduler"))
    refused("is DDIMScheduler, which does not fit", scheduler="DDIMScheduler")
    edit("scheduler/scheduler_config.json", **{**config, "_class_name": "FlowMatchEulerDiscreteScheduler"})
    edit("model_index.json", scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"])
    assert check_generator(FOLDER, params(scheduler="FlowMatchHeunDiscreteScheduler"))
    refused("is EulerDiscreteScheduler, which does not fit", scheduler="EulerDiscreteScheduler")


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("unet/config.json", {"in_channels": 9}, "unet/ and vae/ do not belong together, of 9 and 4 latent channels"),
        ("unet/config.json", {"cross_attention_dim": 768}, "unet/ and text_encoder/ .* of 768 and 16 features"),
        (
            "tokenizer/tokenizer_config.json",
            {"model_max_length": 99},
            "gives 99 tokens, of which text_encoder/ reads 77",
        ),
    ],
)
def test_components_that_do_not_belong_together(file: str, changes: dict[str, Any], said: str) -> None:
    edit(file, **changes)
    refused(said)


def test_sizes() -> None:
    refused("`synthesize.image_size` is 12; .* renders multiples of 8, such as 8", image_size=12)
    edit("vae/config.json", block_out_channels=[8] * 5)
    refused("is 24; .* renders multiples of 16, such as 16", image_size=24)
    edit("vae/config.json", block_out_channels=None)
    assert "cannot be said" in check_generator(FOLDER, params(image_size=24))[-1]


def test_a_stage_refuses_before_it_renders(workspace: Path, stage: Callable[..., int]) -> None:
    assert stage("prompts", "single") == 0
    edit("unet/config.json", in_channels=9)
    assert stage("synthesize", "single") == 2
    assert not (workspace / ".work").exists()
