"""The file that training wrote: what is in it, read without running code of it, or one line that says what it is."""

import argparse
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.errors import InputError, one_line, printable, reading, refusing
from pipeline_lib.models.weights import FLOATS, check_pointer, read_tensors, whole_prefixes

PICKLES = (".pth", ".pth.tar", ".bin", ".pt", ".ckpt")
ENTRIES = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "model_state")  # timm's order
DEPTH = 4  # of entries in entries; a pickle may hold itself
# Besides tensors, what training writes beside them: timm its arguments, others figures of numpy. None of it runs code.
PLAIN: list[Any] = [argparse.Namespace, np.dtype, np.float64, *map(type, map(np.dtype, ("f4", "f8", "i4", "i8")))]
PLAIN += [(np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how torch.save began a file before it wrote zip files
# How torch says what code a pickle names.
CODE = r"(?:Unsupported (?:global|class|operand)[ :]+(?:GLOBAL )?|GLOBAL )([A-Za-z_][\w.]*\.\w+)"
ALONE = "write its tensors alone, in the program that trained it: `torch.save(network.state_dict(), 'weights.pth')`"


def read_state(path: Path, needed: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a checkpoint by name, and in words what was taken for them, and what was left.

    needed: the tensors of the network, by name; where training wrote several networks, those that fit it count.

    Raises:
        InputError: the file is unreadable, holds no network, or several and nothing says which is meant.
    """
    if path.name.endswith(".safetensors"):
        found: Any = read_tensors(path, "give the path of a whole copy of it")
    elif path.name.endswith(PICKLES):
        found = _unpickled(path)
    else:
        raise InputError(f"{path}: expected weights in a .safetensors or a {', '.join(PICKLES)}, found another name")
    entries = dict(_entries(found))
    whole = [name for name, tensors in entries.items() if whole_prefixes(tensors, needed)]
    name = _choose(path, found, entries, whole)
    tensors, said = entries[name], []
    others = [other for other in dict.fromkeys([*(n for n in ENTRIES if n in entries), *whole]) if other != name]
    if name or others:
        average = ", the moving average" if "ema" in name else ""
        left = f", not {', '.join(printable(other) or 'the tensors beside it' for other in others)}" if others else ""
        said.append((f"entry `{printable(name)}`" if name else "the tensors that are in no entry") + average + left)
    for key, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise InputError(
                f"{path}: {printable(key)} has no plain values (sparse, quantized, or none at all); {ALONE}"
            )
        if key.endswith("weight") and tensor.dtype not in FLOATS:
            raise InputError(f"{path}: {printable(key)} is of {tensor.dtype}; expected the float network")
    content = _at(found, name)
    unused = [str(key) for key in content if str(key) not in tensors and str(key) not in others]
    return tensors, [*said, f"not tensors, and not used: {', '.join(map(printable, unused))}"] if unused else said


def _entries(found: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every entry that holds tensors, by a dotted name; the whole file is the entry without one."""
    if not isinstance(found, Mapping) or depth > DEPTH:
        return
    if tensors := {str(key): value for key, value in found.items() if isinstance(value, Tensor)}:
        yield name, tensors
    for key, value in found.items():
        yield from _entries(value, f"{name}.{key}" if name else str(key), depth + 1)


def _at(found: Any, name: str) -> Mapping[Any, Any]:
    """The entry of a dotted name. Keys may have dots as well, so that it is looked up as it was made."""
    if not name:
        return found  # type: ignore[no-any-return]
    for key, value in found.items():
        rest = name.removeprefix(str(key))
        if rest != name and isinstance(value, Mapping) and (not rest or rest.startswith(".")):
            return _at(value, rest.removeprefix("."))
    return {}


def _choose(path: Path, found: Any, entries: Mapping[str, Any], whole: list[str]) -> str:
    """The entry that is meant: the first of timm's, or else the only one that holds the whole network."""
    for name in ENTRIES:
        if name in entries:
            return name
    if len(whole) > 1 and "" not in whole:
        found_all = f"{len(whole)} entries hold the whole network, {_list(whole)}"
        raise InputError(f"{path}: {found_all}; of the one that is meant {ALONE}")
    if whole:
        return "" if "" in whole else whole[0]
    if "" in entries:
        return ""
    kind = f"a dict of {_list(list(found))}" if isinstance(found, Mapping) else type(found).__name__
    raise InputError(f"{path}: expected tensors by name, or those in an entry {', '.join(ENTRIES)}; found {kind}")


def _list(names: list[Any]) -> str:
    return ", ".join(printable(str(name)[:80]) for name in names[:5])


def _unpickled(path: Path) -> Any:
    """What a checkpoint of torch holds, read without running code of it."""
    with reading(path, "a checkpoint of torch", "give the path of a whole copy of it"):
        _check_kind(path)
    with (
        refusing(lambda error: f"{path}: {_of_pickle(error)}"),
        torch.serialization.safe_globals(PLAIN),
        warnings.catch_warnings(action="ignore"),
    ):
        return torch.load(path, map_location="cpu", weights_only=True)


def _of_pickle(error: Exception) -> str:
    """What torch says of a file, without its advice to run whatever code the pickle names."""
    text = " ".join(str(error).split())
    if code := re.search(CODE, text):
        return f"a pickle that names {code[1]}, code that is not run here; {ALONE}"
    why = "its pickle holds more than plain values" if "weights_only" in text else one_line(error)
    return f"no whole checkpoint of torch ({why}); take a whole copy of it, or {ALONE}"


def _check_kind(path: Path) -> None:
    """Stop at a file that torch.save did not write, or that changed since; OSErrors are left to the caller."""
    with path.open("rb") as file:
        head = file.read(256)
    check_pointer(path, head)
    if head.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
                raise InputError(f"{path}: a program of TorchScript, expected tensors by name; {ALONE}")
            # One bit says that a file is a folder: torch then reads zeros, without a word.
            folders = [info.filename for info in archive.infolist() if info.external_attr & 0x10 and not info.is_dir()]
            if damaged := archive.testzip() or next(iter(folders), None):
                raise InputError(
                    f"{path}: damaged: {printable(damaged)} in it is not as it was written; take a whole copy of it"
                )
        if not any(name.endswith("data.pkl") for name in names):
            raise InputError(f"{path}: a zip file that torch.save did not write; {ALONE}")
    elif not head.startswith(OLD):
        kind = "a pickle of something else" if head[:1] == b"\x80" else f"{path.stat().st_size} bytes of another kind"
        raise InputError(f"{path}: expected a checkpoint as torch.save writes it, found {kind}; {ALONE}")
