"""A diffusers text-to-image pipeline as a function from samples to images."""

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import Tensor

from pipeline_lib.artifacts.hub import SAFETY_CHECK, locate
from pipeline_lib.errors import InputError, one_line, refusing
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.synthesis.schedulers import scheduler_class
from pipeline_lib.synthesis.weights import check_complete, networks, weights_variant

# What `encode_prompt` returns in most of diffusers' pipelines: two tensors, or four (SDXL, Stable Diffusion 3).
EMBEDDINGS = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")

Embedding = tuple[Tensor, ...]  # of one text: that of its tokens and, where the pipeline has one, the pooled


def load_pipeline(folder: Path, params: Synthesize, device: torch.device) -> Any:
    """The pipeline on its device, with the scheduler that params name.

    Raises:
        InputError: it cannot be loaded, or lacks what params ask for.
    """
    source, revision = locate(folder)
    of_folder = networks(folder, params.safety_checker) if revision is None else []  # what the hub has is whole
    variant = weights_variant(folder, of_folder, params.dtype)
    for library in (diffusers.utils.logging, transformers.utils.logging):  # an error is raised, one line, below
        library.disable_progress_bar()
        library.set_verbosity(logging.CRITICAL)
    unchecked: dict[str, Any] = {}
    if not params.safety_checker:
        unchecked = {**dict.fromkeys(SAFETY_CHECK), "requires_safety_checker": False}
    with refusing(lambda error: f"{folder}: diffusers cannot load the generator: {one_line(error)}"):
        pipeline = diffusers.DiffusionPipeline.from_pretrained(
            source,
            revision=revision,
            dtype=getattr(torch, params.dtype),
            use_safetensors=True,
            variant=variant,
            **unchecked,
        )
    for name in of_folder:
        check_complete(folder, name, pipeline.components[name])
    if params.safety_checker and getattr(pipeline, "safety_checker", None) is None:
        raise InputError(f"params.yaml: `synthesize.safety_checker` is true, but {folder} has none; set it to false")
    if params.scheduler != "default":
        own = pipeline.scheduler
        pipeline.scheduler = scheduler_class(params.scheduler, type(own), own.config).from_config(own.config)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    return pipeline


@dataclass(frozen=True)
class Picture:
    """One rendered image, uint8 (height, width, 3), and what the pipeline said of it."""

    pixels: npt.NDArray[np.uint8]
    not_a_number: bool  # some values were; they are black now
    unsafe: bool  # the safety checker blanked it


class Generator:
    """A loaded pipeline on one device."""

    def __init__(self, folder: Path, params: Synthesize, device: torch.device) -> None:
        self._pipeline = load_pipeline(folder, params, device)
        self._params, self._device = params, device
        self._accepts = inspect.signature(self._pipeline.__call__).parameters
        self._negative: dict[str, Embedding] = {}
        name = "unet" if hasattr(self._pipeline, "unet") else "transformer"
        self.denoiser: torch.nn.Module = getattr(self._pipeline, name)
        for module in (self.denoiser, getattr(self._pipeline, "vae", None)):
            if module is not None:
                module.to(memory_format=torch.channels_last)
        if params.compile:
            setattr(self._pipeline, name, torch.compile(self.denoiser))

    @property
    def _guided(self) -> bool:
        return self._params.guidance_scale > 1

    @torch.inference_mode()
    def embed(self, samples: Sequence[dict[str, Any]]) -> dict[str, Embedding] | None:
        """Embeddings of all texts of the samples, each text encoded once; none if the pipeline takes no embeddings.

        Raises:
            InputError: samples want mixed embeddings or negative prompts, which the pipeline does not take.
        """
        kind = type(self._pipeline).__name__
        if any(sample["negative_prompt"] for sample in samples):
            if "negative_prompt" not in self._accepts:
                raise InputError(f"{kind} takes no negative prompt; set the recipe's `negative_prompt` to empty")
            if not self._guided:
                raise InputError(
                    f"a negative prompt has no effect without guidance: `synthesize.guidance_scale` in params.yaml is "
                    f"{self._params.guidance_scale}; raise it above 1, or set the recipe's `negative_prompt` to empty"
                )
        texts = list(dict.fromkeys(text for sample in samples for text in _parts(sample)))
        embeddings: dict[str, Embedding] = {}
        for start in range(0, len(texts), self._params.batch_size):
            some = texts[start : start + self._params.batch_size]
            encoded = self._encode(some)
            if encoded is None:
                if any("parts" in sample for sample in samples):
                    raise InputError(f"{kind} takes no embeddings; set the recipe's `fusion` to text")
                return None
            embeddings |= {text: tuple(tensor[i] for tensor in encoded[::2]) for i, text in enumerate(some)}
        return embeddings

    def _encode(self, texts: list[str], negative: str | None = None) -> Embedding | None:
        """As `encode_prompt` returns it: tensors of the texts and, at odd places, of the negative prompt."""
        encode = getattr(self._pipeline, "encode_prompt", None)
        if encode is None or "prompt_embeds" not in self._accepts:
            return None
        if "do_classifier_free_guidance" not in inspect.signature(encode).parameters:  # of another make: Flux
            return None
        guidance: dict[str, Any] = {"do_classifier_free_guidance": negative is not None}
        if negative is not None:
            guidance["negative_prompt"] = [negative] * len(texts)
        encoded = encode(prompt=texts, device=self._device, num_images_per_prompt=1, **guidance)
        known = isinstance(encoded, tuple) and (
            len(encoded) == 2 or (len(encoded) == 4 and "pooled_prompt_embeds" in self._accepts)
        )
        return encoded if known else None

    def _conditions(self, samples: Sequence[dict[str, Any]], embeddings: dict[str, Embedding]) -> dict[str, Tensor]:
        """Arguments of the pipeline: embeddings of prompts, mixed by the samples' weights, and of negative prompts."""
        mixed = [_weighted_sum([embeddings[part] for part in _parts(s)], s["weights"]) for s in samples]
        arguments = dict(zip(EMBEDDINGS[::2], map(torch.stack, zip(*mixed, strict=True)), strict=False))
        if self._guided and "negative_prompt_embeds" in self._accepts:
            for sample in samples:
                text = sample["negative_prompt"]
                if text not in self._negative:
                    encoded = self._encode([sample["prompt"]], text)
                    assert encoded is not None
                    self._negative[text] = tuple(tensor[0] for tensor in encoded[1::2])
            negative = [self._negative[sample["negative_prompt"]] for sample in samples]
            arguments |= zip(EMBEDDINGS[1::2], map(torch.stack, zip(*negative, strict=True)), strict=False)
        return arguments

    @torch.inference_mode()
    def render(self, samples: Sequence[dict[str, Any]], embeddings: dict[str, Embedding] | None) -> list[Picture]:
        """One image a sample, each from its own seed on a CPU generator. `embeddings` are those of `embed`.

        Raises:
            InputError: out of memory, with the number to lower.
        """
        p = self._params
        try:
            arguments: dict[str, Any]
            if embeddings is None:
                arguments = {"prompt": [s["prompt"] for s in samples]}
                if any(s["negative_prompt"] for s in samples):
                    arguments["negative_prompt"] = [s["negative_prompt"] for s in samples]
            else:
                arguments = self._conditions(samples, embeddings)
            result = self._pipeline(
                **arguments,
                num_inference_steps=p.steps,
                guidance_scale=p.guidance_scale,
                height=p.image_size,
                width=p.image_size,
                generator=[torch.Generator().manual_seed(s["seed"]) for s in samples],
                output_type="np",
            )
        except torch.OutOfMemoryError:
            raise InputError(
                f"out of memory while rendering {len(samples)} images at once; lower `synthesize.batch_size` in "
                "params.yaml (it is part of the dataset's identity: all shards are rendered anew)"
            ) from None
        unsafe = getattr(result, "nsfw_content_detected", None) or [False] * len(samples)
        return [_picture(values, found) for values, found in zip(result.images, unsafe, strict=True)]


def _parts(sample: dict[str, Any]) -> list[str]:
    """The texts that are encoded for a sample."""
    parts: list[str] = sample.get("parts", [sample["prompt"]])
    return parts


def _weighted_sum(embeddings: Sequence[Embedding], weights: Sequence[float]) -> Embedding:
    """The convex combination of several embeddings; a single one as it is."""
    if len(embeddings) == 1:
        return embeddings[0]
    return tuple(
        sum(weight * tensor.float() for weight, tensor in zip(weights, tensors, strict=True)).to(tensors[0].dtype)
        for tensors in zip(*embeddings, strict=True)
    )


def _picture(values: npt.NDArray[np.float32], unsafe: bool) -> Picture:
    """Values of 0 to 1 as pixels, as diffusers rounds them."""
    not_a_number = bool(np.isnan(values).any())
    return Picture((np.nan_to_num(values) * 255).round().astype(np.uint8), not_a_number, bool(unsafe))
