"""A diffusers text-to-image pipeline as a function from samples to images."""

import logging
import re
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from PIL import Image

from pipeline_lib.artifacts.records import read_json
from pipeline_lib.errors import InputError
from pipeline_lib.params.synthesize import Synthesize


def locate(folder: Path) -> tuple[str, str | None]:
    """What to pass to `from_pretrained`: a local pipeline folder, or the repository and revision in its hub.json.

    Raises:
        InputError: the folder is absent or incomplete, or the revision is not pinned to a commit.
    """
    hub, index = folder / "hub.json", folder / "model_index.json"
    if hub.exists():
        pointer = read_json(hub)
        revision = str(pointer.get("revision", ""))
        if set(pointer) != {"repository", "revision"} or not re.fullmatch(r"[0-9a-f]{40}", revision):
            raise InputError(f"{hub}: expected `repository` and a `revision` of 40 hex digits, found {pointer}")
        return str(pointer["repository"]), revision
    if not index.exists():
        raise InputError(
            f"{folder}: no generator here: expected model_index.json of a diffusers pipeline, or hub.json; "
            "`task.generator` in params.yaml names the folder"
        )
    for component, (library, _) in {k: v for k, v in read_json(index).items() if isinstance(v, list)}.items():
        if library and not (folder / component).is_dir():
            raise InputError(f"{folder}: incomplete generator: model_index.json names {component}/, which is absent")
    return str(folder), None


class Generator:
    """A loaded pipeline on one device."""

    def __init__(self, folder: Path, params: Synthesize, device: torch.device) -> None:
        source, revision = locate(folder)
        for library in (diffusers.utils.logging, transformers.utils.logging):  # an error is raised, one line, below
            library.disable_progress_bar()
            library.set_verbosity(logging.CRITICAL)
        try:
            pipeline = diffusers.DiffusionPipeline.from_pretrained(
                source, revision=revision, dtype=getattr(torch, params.dtype), use_safetensors=True
            )
        except (OSError, ValueError) as error:
            raise InputError(f"{folder}: diffusers cannot load the generator: {' '.join(str(error).split())}") from None
        if params.scheduler != "default":
            scheduler = getattr(diffusers, params.scheduler, None)
            if scheduler is None or not hasattr(scheduler, "from_config"):
                raise InputError(
                    f"params.yaml: `synthesize.scheduler` is {params.scheduler!r}; "
                    "expected `default` or a scheduler class of diffusers, such as DPMSolverMultistepScheduler"
                )
            pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
        pipeline.set_progress_bar_config(disable=True)
        pipeline.to(device)
        if hasattr(pipeline, "unet"):
            pipeline.unet.to(memory_format=torch.channels_last)
        if hasattr(pipeline, "vae"):
            pipeline.vae.to(memory_format=torch.channels_last)
        self._pipeline = pipeline
        self._params = params

    def render(self, samples: tuple[dict[str, Any], ...]) -> list[Image.Image]:
        """One image a sample, each from its own seed on a CPU generator.

        Raises:
            InputError: out of memory, with the number to lower.
        """
        p = self._params
        arguments: dict[str, Any] = {}
        if p.guidance_scale > 1 and any(s["negative_prompt"] for s in samples):
            arguments["negative_prompt"] = [s["negative_prompt"] for s in samples]
        try:
            with torch.inference_mode():
                result = self._pipeline(
                    prompt=[s["prompt"] for s in samples],
                    num_inference_steps=p.steps,
                    guidance_scale=p.guidance_scale,
                    height=p.image_size,
                    width=p.image_size,
                    generator=[torch.Generator().manual_seed(s["seed"]) for s in samples],
                    **arguments,
                )
        except torch.OutOfMemoryError:
            raise InputError(
                f"out of memory while rendering {len(samples)} images at once; lower `synthesize.batch_size` in "
                "params.yaml (it is part of the dataset's identity: all shards are rendered anew)"
            ) from None
        images: list[Image.Image] = result.images
        return images
