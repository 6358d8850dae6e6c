"""Section `runtime`: where and how fast, never what. No stage tracks it."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline_lib.params.base import Section


class Runtime(Section):
    """Placement."""

    device: Literal["auto", "cpu", "cuda"]  # auto: CUDA where there is one
    threads: Annotated[int, Field(ge=1)]  # of reconstruction and evaluation on a CPU; another number, other last bits
    workers: Annotated[int, Field(ge=0)]  # processes of synthesis; 0: one for each GPU, or for each core up to 4
    cache_gib: Annotated[float, Field(ge=0)]  # memory for what a unit reads and writes; the rest lies in files
