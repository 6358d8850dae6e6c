"""The record of a stage's run: what it read, ran and wrote. Nothing depends on it, and it determines no bytes."""

import platform
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pipeline_lib.artifacts.files import dvc_digest
from pipeline_lib.artifacts.memory import peak_memory
from pipeline_lib.artifacts.records import write_json
from pipeline_lib.errors import InputError
from pipeline_lib.params.base import load, values_read
from pipeline_lib.provenance.code import FIRST_PARTY, PROJECT, first_party_code, foreign_code, library_folders
from pipeline_lib.provenance.dvc_file import DVC_YAML, Declared, declared_for, lookup
from pipeline_lib.provenance.environment import git, operators, processor, torch_settings, variables
from pipeline_lib.reads import Reads, only

ROOT = Path("data/provenance")
FORMAT = 2  # of the record; raise it when a key changes its meaning

ALWAYS_READ = ("params.yaml", "dvc.yaml", "dvc.lock", ".git", ".dvc")  # besides inputs and code

# What an input is, as the stage that reads it says: no name decides it. `made` is the out of another stage.
# `stated images` are what the user says they are.
Kind = Literal[
    "text", "generator weights", "classifier weights", "labelled images", "real images", "stated images", "made"
]


@contextmanager
def recorded(
    stage: str, name: str, packages: tuple[str, ...], outs: Sequence[Path], inputs: Mapping[Path, Kind]
) -> Iterator[dict[str, Any]]:
    """Write `data/provenance/<stage>/<name>.json` when the block succeeds.

    Yields a dictionary to which the block adds what it measured: device, times of units, counts. Digests are as DVC
    computes them, those of inputs of the time when the block begins: a later `dvc commit -f` changes dvc.lock, not what
    the stage itself says it read and wrote.

    Args:
        stage: folder of the record.
        name: of the record.
        packages: whose versions are recorded.
        outs: files and folders that the block writes.
        inputs: files and folders that it reads, and what they are.

    Raises:
        InputError: dvc.yaml does not declare the command or an input of it; an input is not there; or a module of the
            project is hidden by another of its name; or the block opens a file of the project that is no input.
    """
    began = time.monotonic()
    command = ["python", "-m", f"stages.{Path(sys.argv[0]).stem}", *sys.argv[1:]]
    declared = declared_for(command)
    if declared is not None:
        _check(inputs, declared)
    digests = {path.as_posix(): {"digest": dvc_digest(path), "kind": inputs[path]} for path in inputs if path.exists()}
    code = first_party_code()
    facts: dict[str, Any] = {}
    record = ROOT / stage / f"{name}.json"
    with only(_reads(declared.name if declared else shlex.join(command), inputs, [*outs, record])):
        yield facts
    status = git("status", "--porcelain", "--untracked-files=no")
    write_json(
        record,
        {
            "format": FORMAT,
            "stage": stage,
            "name": name,
            "dvc_stage": declared and declared.name,
            "cmd": declared.command if declared else shlex.join(command),
            "git_commit": git("rev-parse", "HEAD"),
            "git_clean": None if status is None else status == "",
            "python": platform.python_version(),
            "packages": {package: version(package) for package in packages},
            "platform": platform.platform(),
            "processor": processor(),
            "wall_seconds": round(time.monotonic() - began, 3),
            "peak_memory_mib": peak_memory.whole(),
            "inputs": digests,
            "params": dict(values_read),
            "outs": {out.as_posix(): dvc_digest(out) for out in outs},
            "code": first_party_code() | code,
            "foreign_code": foreign_code(),
            "sys_path": sys.path,
            "environment": variables(),
            **_if_loaded(torch=torch_settings(), operators=operators()),
            **facts,
        },
    )


def _check(inputs: Mapping[Path, Kind], declared: Declared) -> None:
    """Stop unless the code is that of this dvc.yaml, which declares each input of the stage, and the input is there."""
    if not PROJECT.samefile(Path()):
        raise InputError(
            f"{PROJECT}: {declared.name} runs the code from here, expected that beside {DVC_YAML.absolute()}; "
            "unset PYTHONPATH and PYTHONSAFEPATH"
        )
    deps = {Path(dep) for dep in declared.deps}
    for path, kind in inputs.items():
        if path not in deps:
            raise InputError(
                f"{DVC_YAML}: {declared.name} reads {path}, which its deps lack; write it there and run `dvc repro`"
            )
        if not path.exists():
            mend = "`dvc repro` makes it" if kind == "made" else "put it there, or name another in params.yaml"
            raise InputError(f"{path}: not found, which {declared.name} reads as {kind}; {mend}")


def _reads(stage: str, inputs: Iterable[Path], outs: Iterable[Path]) -> Reads:
    """Guarded are the working directory, and what params.yaml names elsewhere."""
    params = load()
    named = [*(lookup(params, "task") or {}).values(), lookup(params, "study.world")]
    guarded = [Path(), *(Path(path) for path in named if isinstance(path, str))]
    code = [PROJECT / folder for folder in FIRST_PARTY] + [Path(folder) for folder in library_folders()]
    return Reads(stage, guarded, [*inputs, *code, *map(Path, ALWAYS_READ)], outs)


def _if_loaded(**found: dict[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None}
