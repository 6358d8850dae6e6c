"""Resumable work outside DVC's outs, which DVC deletes before a stage runs."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline_lib.artifacts.files import atomic, atomic_directory, install, sha256, sync
from pipeline_lib.artifacts.fingerprints import fingerprint
from pipeline_lib.artifacts.records import read_json, write_json
from pipeline_lib.errors import InputError, RunError
from pipeline_lib.reads import allow

IDENTITY = "identity.json"
PUBLISHED = "published"  # file of a directory whose work is finished; it names the out


def work_root() -> Path:
    """`.work` of the repository that DVC runs in; DVC_ROOT is that also under `dvc exp run --temp`."""
    return Path(os.environ.get("DVC_ROOT", ".")) / ".work"


def at_work(folder: Path) -> bool:
    """Whether a run, of the whole or of a part, holds this work directory."""
    for path in folder.parent.glob(f"{folder.name}*.lock"):
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
    return False


class WorkDirectory:
    """Units of work that survive a kill: `.work/<stage>/<fingerprint of identity>/`.

    A unit is a file below `units/`. It is written under a temporary name, synced, renamed and then entered in
    the journal with its digest. Only what the journal names and the digest confirms counts as done.
    """

    def __init__(self, stage: str, identity: dict[str, Any], part: str = "") -> None:
        self.identity = identity
        self.path = work_root() / stage / fingerprint(identity)
        self.units = self.path / "units"
        self._journal = self.path / f"journal{part and '-'}{part}.jsonl"
        self._entries: dict[str, dict[str, Any]] = {}

    @classmethod
    @contextmanager
    def locked(cls, stage: str, identity: dict[str, Any], part: str = "") -> Iterator["WorkDirectory"]:
        """Hold the directory, or a named part of its work, under a lock that dies with the process.

        Runs of different parts share the directory; a run of the whole has it alone.

        Raises:
            InputError: another process works in it, or it was made for something else.
        """
        work = cls(stage, identity, part)
        allow(work.path.parent)  # which the stage reads, the locks and the finished work of its other runs too
        work.units.mkdir(parents=True, exist_ok=True)
        with ExitStack() as locks:
            work._lock(locks, part)
            if part:  # a run of the whole would hold this
                with ExitStack() as briefly:
                    work._lock(briefly)
            else:
                for path in work.path.parent.glob(f"{work.path.name}.*.lock"):
                    work._lock(locks, path.name.split(".")[1])
            work.units.mkdir(parents=True, exist_ok=True)
            work._open()
            yield work

    def _lock(self, locks: ExitStack, part: str = "") -> None:
        lock = FileLock(self.path.with_name(f"{self.path.name}{part and '.'}{part}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(f"{self.path}: another run is at work here; wait for it to end, or stop it") from None
        locks.callback(lock.release)

    def _open(self) -> None:
        record = self.path / IDENTITY
        if record.exists() and read_json(record) != json.loads(json.dumps(self.identity)):
            raise InputError(f"{self.path}: holds work of another identity; delete the directory and run again")
        write_json(record, self.identity)
        for journal in sorted(self.path.glob("journal*.jsonl")):
            text = journal.read_text()
            if journal == self._journal and text and not text.endswith("\n"):
                with journal.open("a") as file:
                    file.write("\n")  # ends the line that a kill cut short
            for line in text.splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:
                    continue  # such a line; its unit is done again
                unit = self.units / entry["unit"]
                if unit.is_file() and sha256(unit) == entry["sha256"]:
                    self._entries[entry["unit"]] = entry

    def done(self, unit: str) -> bool:
        """Whether the unit is finished, with the bytes that were recorded."""
        return unit in self._entries

    def digest(self, unit: str) -> str:
        """Hex SHA-256 of a finished unit, as it was recorded."""
        return str(self._entries[unit]["sha256"])

    def facts(self, unit: str) -> dict[str, Any]:
        """What was recorded with a finished unit."""
        return {name: value for name, value in self._entries[unit].items() if name not in ("unit", "sha256")}

    @contextmanager
    def writing(self, unit: str, **facts: Any) -> Iterator[Path]:
        """Yield a temporary path; the unit is done when the block ends without an error. `facts` are journalled."""
        with atomic(self.units / unit) as temporary:
            yield temporary
            digest = sha256(temporary)
        entry = {"unit": unit, "sha256": digest, **facts}
        with self._journal.open("a") as journal:
            journal.write(json.dumps(entry) + "\n")
            journal.flush()
            os.fsync(journal.fileno())
        self._entries[unit] = entry

    def verify(self, unit: str) -> None:
        """Hash a finished unit once more.

        Raises:
            RunError: its bytes are no longer those that were recorded.
        """
        if sha256(self.units / unit) != self.digest(unit):
            raise RunError(f"{self.units / unit}: altered while the stage ran; run it again, this unit is done anew")

    def finish(self, out: Path, units: Iterable[str]) -> None:
        """Move these units into the stage's out, in one rename where the file system allows, and forget the work."""
        wanted = set(units)
        for path in self.units.iterdir():
            if path.name not in wanted:
                path.unlink()
        sync(self.units)
        install(self.units, out)
        shutil.rmtree(self.path)

    def publish(self, out: Path, units: Iterable[str]) -> None:
        """Make these units the stage's out and keep them here as well, by hard links where the file system has them.

        A kill before DVC has copied the out into its cache, which for a large one takes a while, then loses nothing.
        They are kept until other work is published as the same out.
        """
        with atomic_directory(out) as folder:
            for unit in units:
                try:
                    (folder / unit).hardlink_to(self.units / unit)
                except OSError:  # another file system
                    shutil.copyfile(self.units / unit, folder / unit)
                    sync(folder / unit)
            sync(folder)
        (self.path / PUBLISHED).write_text(out.as_posix())
        for marker in self.path.parent.glob(f"*/{PUBLISHED}"):
            other = marker.parent
            if other != self.path and marker.read_text() == out.as_posix() and not at_work(other):
                shutil.rmtree(other)

    def clear(self) -> None:
        """Remove all units, to begin anew."""
        shutil.rmtree(self.path)
        self.units.mkdir(parents=True)
        self._entries.clear()
        self._open()
