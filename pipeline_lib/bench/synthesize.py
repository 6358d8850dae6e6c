"""Our synthesis against the plain loop over diffusers' pipeline: the same generator, prompts, seeds and files."""

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pandas as pd
import torch
import transformers
import webdataset

from pipeline_lib.artifacts.memory import peak_memory
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.synthesis.generator import Generator, load_pipeline
from pipeline_lib.synthesis.plan import Shard, plan_shards
from pipeline_lib.synthesis.worker import worker_with

PROMPTS = ("a photo of a sneaker and a bag", "a photo of a coat and a dress", "a photo of a sandal and a pullover")


class Stopwatch:
    """Seconds that a module's forward passes take on the device, without halting the host."""

    def __init__(self, module: torch.nn.Module, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._times: list[tuple[Any, Any]] = []  # start and end of each pass
        self._handles = [module.register_forward_pre_hook(self._start), module.register_forward_hook(self._stop)]

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _start(self, *_: Any) -> None:
        self._began = self._now()

    def _stop(self, *_: Any) -> None:
        self._times.append((self._began, self._now()))

    def read(self) -> float:
        """The sum so far; the module is left alone from now on."""
        for handle in self._handles:
            handle.remove()
        if self._cuda:
            torch.cuda.synchronize()
            return sum(float(start.elapsed_time(stop)) for start, stop in self._times) / 1000
        return float(sum(stop - start for start, stop in self._times))


def compare_loops(generator: Path, params: Synthesize, shards: int, device: torch.device, out: Path) -> pd.DataFrame:
    """Images a second, share of time outside the denoiser and peak memory of both, on one device, after a warm-up.

    Args:
        generator: folder of the generator.
        params: how images are rendered.
        shards: that each loop renders and is timed by.
        device: where both run.
        out: folder that each loop writes its shards into.
    """
    prompts = (
        {"key": f"bench-{i:06d}", "prompt": PROMPTS[i % len(PROMPTS)], "negative_prompt": "", "weights": [0.5, 0.5]}
        for i in range(params.shard_size * (shards + 1))
    )
    warm_up, *timed = plan_shards(prompts, params.shard_size, params.seed)
    if device.type == "cpu":
        torch.set_num_threads(1)  # as workers have
    results = []
    for name, make in LOOPS.items():
        render, denoiser = make(generator, params, device)
        render(Shard(0, warm_up.samples[: params.batch_size]))
        watch = Stopwatch(denoiser, device)
        peak_memory.start()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        for shard in timed:
            (out / f"{name}-{shard.key}").write_bytes(render(shard))
        wall = time.perf_counter() - began
        images = sum(len(shard.samples) for shard in timed)
        memory = torch.cuda.max_memory_allocated() >> 20 if device.type == "cuda" else peak_memory.stretch()
        results.append(
            {
                "loop": name,
                "images": images,
                "images_per_second": images / wall,
                "outside_denoiser_percent": 100 * (1 - watch.read() / wall),
                "peak_memory_mib": memory,
            }
        )
    table = pd.DataFrame(results)
    table["ratio"] = table["images_per_second"] / table["images_per_second"].iloc[0]
    return table


Loop = tuple[Callable[[Shard], bytes], torch.nn.Module]  # renders a shard; its denoiser


def _plain(generator: Path, params: Synthesize, device: torch.device) -> Loop:
    pipeline = load_pipeline(generator, params, device)

    def render(shard: Shard) -> bytes:
        tar = io.BytesIO()
        with webdataset.TarWriter(tar) as writer:
            for start in range(0, len(shard.samples), params.batch_size):
                samples = shard.samples[start : start + params.batch_size]
                images = pipeline(
                    prompt=[s["prompt"] for s in samples],
                    num_inference_steps=params.steps,
                    guidance_scale=params.guidance_scale,
                    height=params.image_size,
                    width=params.image_size,
                    generator=[torch.Generator().manual_seed(s["seed"]) for s in samples],
                ).images
                for image, sample in zip(images, samples, strict=True):
                    writer.write({"__key__": sample["key"], "png": image, "json": sample})
        return tar.getvalue()

    return render, pipeline.unet


def _ours(generator: Path, params: Synthesize, device: torch.device) -> Loop:
    pipeline = Generator(generator, params, device)
    worker = worker_with(pipeline, params, device)
    return lambda shard: worker(shard).content, pipeline.denoiser


LOOPS = {"plain diffusers loop": _plain, "ours": _ours}


def write_random_sd15(tokenizer: Path, folder: Path, dtype: torch.dtype) -> None:
    """A pipeline of Stable Diffusion v1.5's architecture with random weights, to time what cannot be had.

    `tokenizer` is the folder of a generator whose tokenizer it gets.
    """
    torch.manual_seed(0)
    text = transformers.CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768
    )
    pipeline = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            sample_size=512,
        ),
        text_encoder=transformers.CLIPTextModel(text),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(tokenizer / "tokenizer"),
        unet=diffusers.UNet2DConditionModel(
            sample_size=64,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            cross_attention_dim=768,
        ),
        scheduler=diffusers.DPMSolverMultistepScheduler(steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype).save_pretrained(folder)
