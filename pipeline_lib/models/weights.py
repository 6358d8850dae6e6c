"""Weights from files into networks: all of them, of the right shapes, finite; or one line that says what is wrong."""

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline_lib.errors import InputError, one_line, printable, reading, refusing
from pipeline_lib.reads import checked

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_tensors(path: Path, remedy: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name. `remedy` ends the error.

    Raises:
        InputError: the file is absent, cut short, or no safetensors file.
    """
    with reading(path, "a whole safetensors file", remedy):
        with path.open("rb") as file:
            check_pointer(path, file.read(256))
        try:
            tensors: dict[str, Tensor] = load_file(checked(path))
        except MemoryError as error:  # of a header that claims more than there is
            raise ValueError(one_line(error)) from None
    return tensors


def check_pointer(path: Path, head: bytes) -> None:
    """Stop at what Git LFS leaves in place of a file that it has not fetched. `head` is how the file begins.

    Raises:
        InputError: it is such a pointer.
    """
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{path}: expected weights, found the pointer to them of Git LFS; `git lfs pull` fetches them")


def load_weights(network: nn.Module, state: Mapping[str, Tensor], where: str | Path) -> None:
    """Load all tensors of a network, in place; half precision becomes float32, which changes no value.

    Raises:
        InputError: names or shapes differ, or values are no floats or not finite. It names `where` they are from.
    """
    needed = network.state_dict()
    if state.keys() != needed.keys():
        raise InputError(f"{where}: {difference(state.keys(), needed.keys())}")
    for name, tensor in state.items():
        _check_shape(network, name, tensor, needed[name], where)
    check_floats(state, needed, where)
    network.load_state_dict(state)
    check_finite(network, where)


def check_floats(state: Mapping[str, Tensor], needed: Mapping[str, Tensor], where: str | Path) -> None:
    """Whether what the network computes with are floats, which no conversion would change.

    Raises:
        InputError: one is not; the first is named.
    """
    for name, tensor in state.items():
        if name in needed and needed[name].is_floating_point() and tensor.dtype not in FLOATS:
            raise InputError(f"{where}: {printable(name)} is of {tensor.dtype}; expected floats, of 16 bits or more")


def check_finite(network: nn.Module, where: str | Path) -> None:
    """Whether every tensor of a network is finite.

    Raises:
        InputError: one is not; the first is named.
    """
    for name, tensor in network.state_dict().items():
        if not tensor.isfinite().all():
            count = int((~tensor.isfinite()).sum())
            raise InputError(f"{where}: {name} has {count} values that are NaN or infinite; take weights that are not")


@torch.no_grad()
def check_runs(network: nn.Module, input_size: list[int], num_classes: int, where: str | Path) -> None:
    """Whether a network gives finite logits, (1, classes), for an image of (channels, height, width).

    Raises:
        InputError: it does not.
    """
    image = torch.randn(1, *input_size, generator=torch.Generator().manual_seed(0))
    with refusing(
        lambda error: (
            f"{where}: the network cannot take an image of {input_size} ({one_line(error)}); `input_size` in "
            "`preprocessing` is that, and `img_size` in `arguments` what some networks are built for"
        )
    ):
        logits = network(image)
    if not isinstance(logits, Tensor) or tuple(logits.shape) != (1, num_classes):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"{where}: expected a network that gives logits of shape (1, {num_classes}), found {found}")
    if not logits.isfinite().all():
        raise InputError(f"{where}: the network gives logits that are NaN or infinite; its weights are not sound")


def difference(found: Collection[str], needed: Collection[str]) -> str:
    """In words, how the names of tensors differ from those that a network needs, and what may mend it."""
    present, wanted = set(found), set(needed)
    missing = [name for name in needed if name not in present]
    unexpected = [name for name in found if name not in wanted]
    parts = [
        f"{len(names)} of {total} tensors {what}, first {printable(names[0])}"
        for names, total, what in [
            (missing, len(needed), "that the network needs are missing"),
            (unexpected, len(found), "are of no use to it"),
        ]
        if names
    ]
    prefix, matches = likely_prefix(found, needed)
    if prefix and matches * 2 > len(needed):
        parts.append(
            f"the names have the prefix {prefix!r}, which `python -m pipeline_lib import-classifier` takes off"
        )
    return "; ".join(parts)


def likely_prefix(found: Collection[str], needed: Collection[str]) -> tuple[str, int]:
    """The prefix that makes most of the found names needed ones, and how many."""
    wanted, counts = set(needed), Counter[str]({"": 0})
    for name in found:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in wanted:
                counts["".join(f"{part}." for part in parts[:start])] += 1
    return counts.most_common(1)[0]


def whole_prefixes(found: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> list[str]:
    """Every prefix under which all of the needed tensors are found, of the shapes that are needed."""
    one = next(iter(needed))
    prefixes = [name.removesuffix(one) for name, tensor in found.items() if name.endswith(one)]
    return [
        prefix
        for prefix in prefixes
        if (not prefix or prefix.endswith("."))
        and all(
            prefix + name in found and found[prefix + name].shape == tensor.shape for name, tensor in needed.items()
        )
    ]


def _check_shape(network: nn.Module, name: str, tensor: Tensor, needed: Tensor, where: str | Path) -> None:
    found, expected = tuple(tensor.shape), tuple(needed.shape)
    if found == expected:
        return
    heads = (getattr(network, "pretrained_cfg", None) or {}).get("classifier") or ()
    is_head = name.rpartition(".")[0] in ((heads,) if isinstance(heads, str) else heads)
    if is_head and len(found) == len(expected) and found[1:] == expected[1:]:
        raise InputError(
            f"{where}: {name} is for {found[0]} classes, but the network for {expected[0]}; `num_classes` in "
            "model.json (--classes of import-classifier) is the number"
        )
    raise InputError(f"{where}: {name}: the network of model.json has {expected}, the checkpoint {found}")
