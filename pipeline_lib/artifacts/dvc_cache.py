"""What DVC keeps of a stage's earlier run. It deletes outs before a stage runs, but not from its cache."""

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline_lib.artifacts.files import dvc_digest, md5
from pipeline_lib.errors import InputError, RunError
from pipeline_lib.reads import allow
from pipeline_lib.yaml_file import read_yaml

LOCK = Path("dvc.lock")
CODE = ("pipeline_lib", "stages")  # folders of the repository


class LockedFile(BaseModel):
    """A dependency or an out, as an entry of dvc.lock has it."""

    model_config = ConfigDict(strict=True)

    path: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$")]
    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}(\.dir)?$")]


class LockedStage(BaseModel):
    """An entry of dvc.lock, as DVC writes them."""

    model_config = ConfigDict(strict=True, extra="forbid")

    cmd: str
    deps: list[LockedFile] = []
    params: dict[str, dict[str, Any]] = {}
    outs: list[LockedFile] = []


def malformed(error: ValidationError) -> str:
    """What is wrong with an entry of dvc.lock: the key, and what is expected there."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'entry'}: {first['msg']}"


@dataclass(frozen=True)
class CachedFile:
    """A file of an out that DVC's cache holds; its bytes are not verified by DVC."""

    path: Path
    md5: str

    def is_whole(self) -> bool:
        """Whether the cache has the bytes that it should have."""
        return md5(self.path) == self.md5

    def read(self) -> bytes | None:
        """Its bytes; none where the cache has others."""
        content = self.path.read_bytes()
        return content if hashlib.md5(content).hexdigest() == self.md5 else None


@dataclass(frozen=True)
class LastRun:
    """A stage's last finished run, as dvc.lock has it.

    outs: the files that it wrote, by path in the repository, as far as the cache has them.
    same_code_and_params: its code and its parameters are on the disk as they were.
    """

    outs: dict[str, CachedFile]
    same_code_and_params: bool

    def was_of(self, work: Path, out: str) -> bool:
        """Whether the run wrote this finished work as the file `out`, with the same code: who runs again forces it."""
        file = self.outs.get(out)
        return self.same_code_and_params and file is not None and file.md5 == md5(work)


def last_run(stage: str) -> LastRun:
    """What dvc.lock has of a stage, `synthesize@mixup` in a matrix; no outs where it never ran.

    Raises:
        InputError: dvc.lock is not as DVC writes it.
        RunError: DVC does not say where its cache is.
    """
    stages = read_yaml(LOCK, "`dvc repro` writes it").get("stages") or {} if LOCK.exists() else {}
    if not isinstance(stages, dict):
        raise InputError(f"{LOCK}: expected a mapping `stages`; `git checkout {LOCK}` restores it")
    if stage not in stages:
        return LastRun({}, False)
    try:
        entry = LockedStage.model_validate(stages[stage])
    except ValidationError as error:
        raise InputError(f"{LOCK}: {stage}: {malformed(error)}; `git checkout {LOCK}` restores it") from None
    return LastRun(_cached_files(entry.outs), _same_code(entry) and _same_params(entry))


def _same_code(entry: LockedStage) -> bool:
    code = {Path(dep.path): dep.md5 for dep in entry.deps if dep.path.split("/")[0] in CODE}
    return all(path.exists() and dvc_digest(path) == digest for path, digest in code.items())


def _same_params(entry: LockedStage) -> bool:
    for file, recorded in entry.params.items():
        now = read_yaml(Path(file), "`dvc repro` read it the last time")
        for key, value in recorded.items():
            found: Any = now
            for part in key.split("."):
                found = found.get(part) if isinstance(found, dict) else None
            if found != value:
                return False
    return True


def _cached_files(outs: list[LockedFile]) -> dict[str, CachedFile]:
    cache = cache_folder()
    files: dict[str, CachedFile] = {}
    for out in outs:
        whole = cached(cache, out.md5)
        if not out.md5.endswith(".dir"):
            files[out.path] = whole
        elif whole.path.exists():
            for member in json.loads(whole.read() or "[]"):  # a list of other bytes than DVC wrote is none
                files[f"{out.path}/{member['relpath']}"] = cached(cache, member["md5"])
    return {name: file for name, file in files.items() if file.path.exists()}


def cached(cache: Path, md5: str) -> CachedFile:
    """Where the cache has what dvc.lock calls by this digest."""
    return CachedFile(cache / "files" / "md5" / md5[:2] / md5[2:], md5.removesuffix(".dir"))


def cache_folder() -> Path:
    """Where DVC's cache is.

    Raises:
        RunError: DVC does not say.
    """
    result = subprocess.run([sys.executable, "-m", "dvc", "cache", "dir"], capture_output=True, text=True, check=False)
    if result.returncode:
        raise RunError(f"`dvc cache dir` failed: {' '.join(result.stderr.split())}")
    folder = Path(result.stdout.strip())
    allow(folder)  # a stage may read what DVC keeps of its last run
    return folder
