"""The files of weights in a generator's folder."""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pipeline_lib.artifacts.hub import SAFETY_CHECK, components
from pipeline_lib.errors import InputError
from pipeline_lib.reads import checked

WITHOUT_WEIGHTS = re.compile("(Scheduler|Tokenizer(Fast)?|Processor|ProcessorFast|Extractor)$")
PLAIN = re.compile(r"(diffusion_pytorch_)?model(-\d+-of-\d+)?\.safetensors")
PICKLED = re.compile(r".*\.(bin|ckpt|pt|pth)")
HALF = re.compile(r"(diffusion_pytorch_)?model(-\d+-of-\d+)?\.fp16(-\d+-of-\d+)?\.safetensors")


def networks(folder: Path, safety_checker: bool) -> list[str]:
    """The components that have weights and are loaded, of a pipeline in a folder.

    Raises:
        InputError: as `components`.
    """
    named = components(folder).items()
    unused = set() if safety_checker else SAFETY_CHECK
    return [name for name, (_, kind) in named if name not in unused and not WITHOUT_WEIGHTS.search(kind)]


def weights_variant(folder: Path, names: Iterable[str], dtype: str) -> str | None:
    """`fp16` where a network has weights of half precision alone, which is what `from_pretrained` calls them; or none.

    names: of the networks, see `networks`; dtype: `synthesize.dtype`.

    Raises:
        InputError: a network has no weights, or none that can be read as params ask, or a file of them is damaged.
    """
    variant = None
    for name in names:
        plain, half = _files(folder / name, PLAIN), _files(folder / name, HALF)
        where = f"{folder}: diffusers cannot load the generator: {name}/ has"
        if not plain and half:
            variant = "fp16"
            if dtype != "float16":
                raise InputError(
                    f"{where} weights of half precision alone ({half[0].name}), but `synthesize.dtype` in params.yaml "
                    f"is {dtype}; set it to float16"
                )
        elif not plain:
            pickled = [path.name for path in _files(folder / name, PICKLED)]
            raise InputError(
                f"{where} no weights, expected *.safetensors, found {', '.join(pickled) or 'no such file'}"
                + (f"; `{_conversion(folder)}` converts them" if pickled else "; copy them there")
            )
        parts = {int(total) for path in plain or half for total in re.findall(r"-of-(\d+)", path.name)}
        if parts and len(plain or half) < max(parts):
            raise InputError(f"{where} {len(plain or half)} of {max(parts)} files of weights; copy the others there")
        for path in plain or half:
            _elements(path)
    return variant


def check_complete(folder: Path, name: str, network: Any) -> None:
    """Hold a network that was loaded to its files: what they lack was drawn at random, with no more than a warning.

    Names differ from one version of the libraries to another, so elements are counted.

    Raises:
        InputError: the files have fewer elements than the network has weights.
    """
    files = _files(folder / name, PLAIN) or _files(folder / name, HALF)
    stored, needed = sum(map(_elements, files)), sum(weight.numel() for weight in network.parameters())
    if stored < needed:
        raise InputError(
            f"{folder}: diffusers cannot load the generator: the files of weights in {name}/ have {stored} numbers, "
            f"the network of its config.json {needed}; take both from one pipeline"
        )


def _files(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.is_file() and pattern.fullmatch(path.name))


def _conversion(folder: Path) -> str:
    """What writes the same generator as safetensors."""
    read = f"DiffusionPipeline.from_pretrained('{folder}')"
    return f"python -c \"from diffusers import DiffusionPipeline; {read}.save_pretrained('{folder}-safetensors')\""


def _elements(path: Path) -> int:
    """Numbers in a file of weights, by its header; a file that was cut is shorter than that says."""
    try:
        with safe_open(checked(path), framework="numpy") as file:
            elements: int = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged weights, {' '.join(str(error).split())}; copy the file anew") from None
    if not elements:
        raise InputError(f"{path}: expected weights, found a file without tensors; copy it anew")
    return elements
