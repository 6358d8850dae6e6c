"""What DVC keeps of a stage's earlier run. It deletes outs before a stage runs, but not from its cache."""

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.errors import RunError
from pipeline_lib.yaml_file import read_yaml

LOCK = Path("dvc.lock")


@dataclass(frozen=True)
class CachedFile:
    """A file of an out that DVC's cache holds; its bytes are not verified by DVC."""

    path: Path
    md5: str

    def read(self) -> bytes | None:
        """Its bytes; none where the cache has others."""
        content = self.path.read_bytes()
        return content if hashlib.md5(content).hexdigest() == self.md5 else None


def last_outs(stage: str) -> dict[str, CachedFile]:
    """Files of the outs of a stage's last finished run, by path in the repository, as far as the cache has them.

    Raises:
        RunError: DVC does not say where its cache is.
    """
    if not LOCK.exists():
        return {}
    entry = read_yaml(LOCK, "`dvc repro` writes it").get("stages", {}).get(stage)
    if entry is None:
        return {}
    cache = cache_folder()
    files: dict[str, CachedFile] = {}
    for out in entry["outs"]:
        whole = cached(cache, out["md5"])
        if not out["md5"].endswith(".dir"):
            files[out["path"]] = whole
        elif whole.path.exists():
            for member in json.loads(whole.path.read_bytes()):
                files[f"{out['path']}/{member['relpath']}"] = cached(cache, member["md5"])
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
    return Path(result.stdout.strip())
