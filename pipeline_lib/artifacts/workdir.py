"""Resumable work outside DVC's outs, which DVC deletes before a stage runs."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline_lib.artifacts.files import atomic, install, sha256, sync
from pipeline_lib.artifacts.fingerprints import fingerprint
from pipeline_lib.artifacts.records import read_json, write_json
from pipeline_lib.errors import InputError


def work_root() -> Path:
    """`.work` of the repository that DVC runs in; DVC_ROOT is that also under `dvc exp run --temp`."""
    return Path(os.environ.get("DVC_ROOT", ".")) / ".work"


class WorkDirectory:
    """Units of work that survive a kill: `.work/<stage>/<fingerprint of identity>/`.

    A unit is a file below `units/`. It is written under a temporary name, synced, renamed and then entered in
    the journal with its digest. Only what the journal names and the digest confirms counts as done.
    """

    def __init__(self, stage: str, identity: dict[str, Any]) -> None:
        self.identity = identity
        self.path = work_root() / stage / fingerprint(identity)
        self.units = self.path / "units"
        self._journal = self.path / "journal.jsonl"
        self._done: dict[str, str] = {}

    @classmethod
    @contextmanager
    def locked(cls, stage: str, identity: dict[str, Any]) -> Iterator["WorkDirectory"]:
        """Hold the directory under a lock that dies with the process.

        Raises:
            InputError: another process works in it, or it was made for something else.
        """
        work = cls(stage, identity)
        work.units.mkdir(parents=True, exist_ok=True)
        lock = FileLock(work.path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(f"{work.path}: another run is at work here; wait for it to end, or stop it") from None
        try:
            work.units.mkdir(parents=True, exist_ok=True)
            work._open()
            yield work
        finally:
            lock.release()

    def _open(self) -> None:
        record = self.path / "identity.json"
        if record.exists() and read_json(record) != json.loads(json.dumps(self.identity)):
            raise InputError(f"{self.path}: holds work of another identity; delete the directory and run again")
        write_json(record, self.identity)
        if not self._journal.exists():
            return
        for line in self._journal.read_text().splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # the line that a kill cut short; its unit is done again
            unit = self.units / entry["unit"]
            if unit.is_file() and sha256(unit) == entry["sha256"]:
                self._done[entry["unit"]] = entry["sha256"]

    def done(self, unit: str) -> bool:
        """Whether the unit is finished, with the bytes that were recorded."""
        return unit in self._done

    @contextmanager
    def writing(self, unit: str) -> Iterator[Path]:
        """Yield a temporary path; the unit is done when the block ends without an error."""
        with atomic(self.units / unit) as temporary:
            yield temporary
        digest = sha256(self.units / unit)
        with self._journal.open("a") as journal:
            journal.write(json.dumps({"unit": unit, "sha256": digest}) + "\n")
            journal.flush()
            os.fsync(journal.fileno())
        self._done[unit] = digest

    def finish(self, out: Path, units: Iterable[str]) -> None:
        """Move these units into the stage's out, in one rename where the file system allows, and forget the work."""
        wanted = set(units)
        for path in self.units.iterdir():
            if path.name not in wanted:
                path.unlink()
        sync(self.units)
        install(self.units, out)
        shutil.rmtree(self.path)
