"""What can be known of a generator in seconds, from its configuration: that it will load and render as params ask."""

import inspect
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import diffusers
import transformers

from pipeline_lib.artifacts.hub import SAFETY_CHECK, components, locate, pipeline_class
from pipeline_lib.artifacts.records import read_json
from pipeline_lib.errors import InputError, one_line, shown
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.synthesis.schedulers import scheduler_class
from pipeline_lib.synthesis.weights import networks, weights_variant

ARGUMENTS = {"prompt", "num_inference_steps", "guidance_scale", "height", "width", "generator", "output_type"}
MOST_BLOCKS = 16  # of an autoencoder; those that there are have up to 6
LARGEST = 65_536  # channels, or pixels a side
LIBRARIES = {"diffusers": diffusers, "transformers": transformers}


def check_generator(folder: Path, params: Synthesize) -> list[str]:
    """Facts about the generator, each a line to read; no weights are loaded, nothing is downloaded.

    folder: with a diffusers pipeline, or hub.json, of whose repository only what the cache has is looked at.

    Raises:
        InputError: it will not load, or not render what params ask for.
    """
    source, revision = locate(folder)
    if revision is not None:
        cached = _cached(source, revision)
        if cached is None:
            return [f"{source} at {revision[:12]}: not in the hub's cache; it is downloaded when it is first used"]
        folder = cached
    if params.safety_checker and not (folder / "safety_checker").is_dir():
        raise InputError(f"params.yaml: `synthesize.safety_checker` is true, but {folder} has none; set it to false")
    kind = _pipeline(folder)
    used = {n: c for n, c in components(folder).items() if params.safety_checker or n not in SAFETY_CHECK}
    for name, (library, component) in used.items():
        if library in LIBRARIES and not hasattr(LIBRARIES[library], component):
            raise InputError(f"{folder}: model_index.json names {name} as {component}, which {library} does not have")
    names = networks(folder, params.safety_checker)
    absent = [file for file in _configurations(names) if not (folder / file).is_file()]
    if absent:
        raise InputError(f"{folder}: diffusers cannot load the generator: {absent[0]} is absent; copy it there")
    configs = {name: _config(folder, name) for name in used}
    half = weights_variant(folder, names, params.dtype) if revision is None else None
    if params.scheduler != "default":
        library, component = used.get("scheduler", ("", ""))
        if library != "diffusers":
            raise InputError(
                f"{folder}: model_index.json names no `scheduler` of diffusers, which another could replace; set "
                "`synthesize.scheduler` in params.yaml to default"
            )
        own = getattr(diffusers, component)
        scheduler_class(params.scheduler, own, configs["scheduler"])
    _check_fit(folder, configs)
    facts = [f"{kind} of {', '.join(names)}" + ("; weights of half precision (fp16)" if half else "")]
    return [*facts, *_check_size(folder, configs, params.image_size)]


def _configurations(names: Iterable[str]) -> list[str]:
    """The files that say what networks and scheduler are."""
    return [*(f"{name}/config.json" for name in names), "scheduler/scheduler_config.json"]


def _cached(repository: str, revision: str) -> Path | None:
    """The folder of a pipeline in the hub's cache, if all configurations are there."""
    from huggingface_hub import try_to_load_from_cache

    index = try_to_load_from_cache(repository, "model_index.json", revision=revision)
    if not isinstance(index, str):
        return None
    folder = Path(index).parent
    files = _configurations(networks(folder, safety_checker=False))
    return folder if all((folder / file).is_file() for file in files) else None


def _pipeline(folder: Path) -> str:
    """The class of the pipeline, which renders images from prompts alone."""
    name = pipeline_class(folder)
    try:
        accepts = inspect.signature(getattr(diffusers, name).__call__).parameters.keys()
    except (AttributeError, ImportError) as error:
        raise InputError(
            f"{folder}: model_index.json names the pipeline {name}, which diffusers {diffusers.__version__} does not "
            f"have: {one_line(error)}"
        ) from None
    absent = sorted(ARGUMENTS - accepts)
    if absent or {"image", "strength"} <= accepts:
        why = f"it takes no {', '.join(absent)}" if absent else "it begins with an image"
        raise InputError(f"{folder}: expected a pipeline that renders images from prompts, found {name}: {why}")
    return name


def _config(folder: Path, name: str) -> dict[str, Any]:
    """The configuration of a component, empty where it has none under a usual name."""
    paths = [folder / name / file for file in ("config.json", "scheduler_config.json", "tokenizer_config.json")]
    return next((read_json(path) for path in paths if path.exists()), {})


def _check_fit(folder: Path, configs: dict[str, dict[str, Any]]) -> None:
    """Hold the components of a pipeline with a U-Net to each other."""
    unet, vae, encoder = (configs.get(name, {}) for name in ("unet", "vae", "text_encoder"))
    pairs = [("unet", unet.get("in_channels"), "vae", vae.get("latent_channels"), "latent channels")]
    if "text_encoder_2" not in configs and not unet.get("encoder_hid_dim"):
        pairs.append(("unet", unet.get("cross_attention_dim"), "text_encoder", encoder.get("hidden_size"), "features"))
    for one, of_one, other, of_other, what in pairs:
        if isinstance(of_one, int) and isinstance(of_other, int) and of_one != of_other:
            raise InputError(
                f"{folder}: {one}/ and {other}/ do not belong together, of {of_one} and {of_other} {what}; take both "
                "from one text-to-image pipeline"
            )
    places, tokens = encoder.get("max_position_embeddings"), configs.get("tokenizer", {}).get("model_max_length")
    if isinstance(places, int) and isinstance(tokens, int) and tokens > places:
        raise InputError(
            f"{folder}: tokenizer/ gives {tokens} tokens, of which text_encoder/ reads {places}; set "
            f"`model_max_length` in tokenizer/tokenizer_config.json to {places}"
        )


def _check_size(folder: Path, configs: dict[str, dict[str, Any]], size: int) -> list[str]:
    """Hold the image size to what the networks can render; facts about it.

    The pipelines of diffusers refuse sizes that are no multiples of 8, and render another size, without a word, where
    it is none of the pixels of a latent or of a patch of them.
    """
    pixels = _pixels_of_a_latent(folder, configs)
    if pixels is None:
        return [f"{folder}: whether an image_size of {size} fits cannot be said: vae/config.json names no blocks"]
    name, denoiser = _denoiser(configs)
    packed = denoiser.get("in_channels") == 4 * (_whole(folder, "vae", configs, "latent_channels") or 0)  # as in Flux
    patch = 2 if packed else _whole(folder, name, configs, "patch_size") or 1
    multiple = math.lcm(8, pixels * patch)
    if size % multiple:
        raise InputError(
            f"params.yaml: `synthesize.image_size` is {size}; the generator at {folder} renders multiples of "
            f"{multiple}, such as {max(multiple, size // multiple * multiple)}"
        )
    trained = _trained_size(folder, configs)
    if trained is not None and trained != size:
        return [f"images of {size} pixels a side; it was trained on {trained}, other sizes may look worse"]
    return [f"images of {size} pixels a side"]


def trained_size(folder: Path) -> int | None:
    """Pixels a side of the images that a generator in a folder was trained on, if its configuration says so.

    Raises:
        InputError: a configuration cannot be read, or has a number that is out of range.
    """
    return _trained_size(folder, {name: _config(folder, name) for name in components(folder)})


def _trained_size(folder: Path, configs: dict[str, dict[str, Any]]) -> int | None:
    latents = _whole(folder, _denoiser(configs)[0], configs, "sample_size")
    pixels = _pixels_of_a_latent(folder, configs)
    return latents * pixels if latents is not None and pixels is not None else None


def _denoiser(configs: dict[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    name = "unet" if configs.get("unet") else "transformer"
    return name, configs.get(name, {})


def _pixels_of_a_latent(folder: Path, configs: dict[str, dict[str, Any]]) -> int | None:
    """A side: every block but the last halves it."""
    vae = configs.get("vae", {})
    blocks = vae.get("block_out_channels") or vae.get("encoder_block_out_channels")
    if not isinstance(blocks, list):
        return None
    if len(blocks) > MOST_BLOCKS:
        raise InputError(
            f"{folder}: expected at most {MOST_BLOCKS} blocks in vae/config.json, found {len(blocks)}; "
            "copy the file that came with the generator"
        )
    return int(2 ** (len(blocks) - 1))


def _whole(folder: Path, name: str, configs: dict[str, dict[str, Any]], key: str) -> int | None:
    """A number of a configuration; None where it has none, or more than one."""
    value = configs.get(name, {}).get(key)
    if isinstance(value, bool | str | float) or (isinstance(value, int) and not 1 <= value <= LARGEST):
        raise InputError(
            f"{folder}: expected `{key}` in {name}/config.json to be a whole number from 1 to {LARGEST}, found "
            f"{shown(value)}; copy the file that came with the generator"
        )
    return value if isinstance(value, int) else None
