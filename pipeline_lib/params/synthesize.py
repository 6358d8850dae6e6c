"""Section `synthesize`: everything that determines the pixels, besides prompts and generator weights."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline_lib.params.base import Batch, Rate, Section, Seed, Share


class Synthesize(Section):
    """Identity of a rendering."""

    seed: Seed = 0  # base of the per-sample seeds
    scheduler: str = "default"  # class name in diffusers, or `default` for the pipeline's own
    steps: Annotated[int, Field(ge=1, le=1000)]
    guidance_scale: Rate
    image_size: Annotated[int, Field(ge=8, le=8192, multiple_of=4)]  # pixels, square
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    batch_size: Batch  # images rendered together; out of memory: lower it
    shard_size: Annotated[int, Field(ge=1, le=1_000_000)]  # images a tar, the unit of work and of resuming
    blank_deviation: Annotated[
        float, Field(ge=0, le=255)
    ]  # standard deviation of pixels (0 to 255) below which one is blank
    safety_checker: bool = False  # run the pipeline's own, which blanks what it finds
    compile: bool = False  # torch.compile of the denoiser: faster after minutes, other last bits
    max_bad_fraction: Share  # bad images (blank, NaN, duplicate, ...) that are tolerated
