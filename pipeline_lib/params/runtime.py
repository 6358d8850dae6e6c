"""Section `runtime`: where and how fast, never what. No stage tracks it."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline_lib.params.base import PathText, Section, Threads


class Ray(Section):
    """A Ray cluster."""

    address: PathText = (
        "auto"  # of its head, `auto` for the one that this machine belongs to, `local` to start one here
    )


class Runtime(Section):
    """Placement."""

    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: CUDA where there is one
    threads: Threads = 1  # of reconstruction and evaluation on a CPU; another number, other last bits
    executor: Literal["local", "ray"] = "local"  # of synthesis: processes of this machine, or actors of a Ray cluster
    ray: Ray = Ray()
    workers: Annotated[int, Field(ge=0, le=1024)] = (
        0  # of synthesis; 0: one for each GPU, or for each core (here up to 4)
    )
    cache_gib: Annotated[
        float, Field(ge=0, le=1_000_000)
    ]  # memory for what a unit reads and writes; the rest lies in files
