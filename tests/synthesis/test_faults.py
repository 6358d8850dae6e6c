"""Synthesis under fire: always a finished run with the bytes of an undisturbed one, or a clear error."""

import errno
import multiprocessing
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline_lib.artifacts.records import write_lines
from pipeline_lib.errors import exit_code
from pipeline_lib.params.base import read
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.synthesis.synthesize import Synthesis

SHARDS = 8
FORKS = multiprocessing.get_context("forkserver")  # torch is imported once, not for every driver that is killed
FORKS.set_forkserver_preload(["pipeline_lib.synthesis.synthesize", "transformers.models.clip.modeling_clip"])


def drive(folder: Path, out: str, workers: int) -> None:
    """What the stage does, in a process of its own."""
    os.chdir(folder)
    runtime = read(Runtime, "runtime").model_copy(update={"device": "cpu", "workers": workers})
    params = read(Synthesize, "synthesize")
    made = Synthesis("mixup", Path("prompts.jsonl"), Path("world/generator"), params, runtime)
    raise SystemExit(exit_code(lambda: made.run(Path(out))))


@pytest.fixture
def start(workspace: Path) -> Callable[..., multiprocessing.Process]:
    row = {"prompt": "a b", "negative_prompt": "", "classes": [0, 1], "weights": [0.5, 0.5]}
    write_lines(workspace / "prompts.jsonl", ({"key": f"mixup-{i:06d}", **row} for i in range(4 * SHARDS)))

    def run(workers: int = 1) -> multiprocessing.Process:
        process = FORKS.Process(target=drive, args=(workspace, "out", workers))
        process.start()
        return process

    return run


@pytest.fixture
def reference(workspace: Path, start: Callable[..., multiprocessing.Process]) -> dict[str, bytes]:
    assert finished(start()) == 0
    bytes_by_name = files()
    shutil.rmtree("out")
    shutil.rmtree(".work")
    return bytes_by_name


def finished(process: multiprocessing.Process) -> int | None:
    process.join(120)
    return process.exitcode


def files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path("out").iterdir()}


def units() -> dict[Path, int]:
    """Finished shards, those in the journal, and when they were written."""
    found = {}
    for journal in Path(".work").glob("synthesize/*/journal.jsonl"):
        names = re.findall(r'^{"unit": "(\d+\.tar)", .*}$', journal.read_text(), re.MULTILINE)
        paths = [journal.parent / "units" / name for name in names]
        found |= {path: path.stat().st_mtime_ns for path in paths if path.exists()}
    return found


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def tear_the_journal(path: Path) -> None:
    with (path.parents[1] / "journal.jsonl").open("a") as journal:
        journal.write('{"unit": "000')


def plant_a_stranger(path: Path) -> None:
    path.with_name("000099.tar").write_bytes(b"not ours")
    whole_but_of_other_samples = path.read_bytes()
    path.with_name(f"{SHARDS - 1:06d}.tar").write_bytes(whole_but_of_other_samples)


def leave_be(path: Path) -> None:
    pass


def test_killed_at_random_moments_and_sabotaged_in_between(
    start: Callable[..., multiprocessing.Process], reference: dict[str, bytes]
) -> None:
    rng = random.Random(0)
    kept: dict[Path, int] = {}
    kills = 0
    while kills < 20:
        process = start()
        process.join(rng.uniform(0.05, 3.0))
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
            assert not Path("out").exists() or files() == reference
        else:
            assert process.exitcode == 0
            assert files() == reference
        now = units()
        assert all(now.get(path) == at for path, at in kept.items()), "what was finished is not rendered again"
        if Path("out").exists():
            shutil.rmtree("out")
            shutil.rmtree(".work")
        if units():
            harm = rng.choice([flip, truncate, tear_the_journal, plant_a_stranger, leave_be])
            harm(rng.choice(sorted(units())))
        kept = {path: at for path, at in units().items() if path.read_bytes() == reference[path.name]}
    assert finished(start()) == 0
    assert files() == reference


def test_killed_workers(start: Callable[..., multiprocessing.Process], reference: dict[str, bytes]) -> None:
    process = start(workers=2)
    while not units():
        assert process.is_alive()
        time.sleep(0.05)
    workers = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    before = units()
    os.kill(workers[-1], signal.SIGKILL)
    assert finished(process) == 1
    assert before.items() <= units().items()
    assert not Path("out").exists()
    assert finished(start()) == 0
    assert files() == reference


def test_a_second_writer_is_refused(start: Callable[..., multiprocessing.Process], reference: dict[str, bytes]) -> None:
    first = start()
    while not units():
        assert first.is_alive()
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGSTOP)
    assert finished(start()) == 2
    os.kill(first.pid, signal.SIGCONT)
    assert finished(first) == 0
    assert files() == reference


@pytest.mark.parametrize("where", ["write", "fsync"])
def test_full_disk(
    where: str,
    workspace: Path,
    start: Callable[..., multiprocessing.Process],
    reference: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = 0

    def full(real: Callable[..., object], at: int) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            nonlocal calls
            calls += 1
            if calls == at:
                raise OSError(errno.ENOSPC, "No space left on device", "somewhere")
            return real(*arguments)

        return call

    target = (os, "fsync", 11) if where == "fsync" else (Path, "write_bytes", 4)
    with monkeypatch.context() as patch:
        patch.setattr(*target[:2], full(getattr(*target[:2]), target[2]))
        with pytest.raises(SystemExit, match="1"):
            drive(workspace, "out", 1)
    assert "No space left on device" in capsys.readouterr().err
    assert not Path("out").exists()
    before = units()
    assert before
    assert not list(Path(".work").rglob(".0*")), "no temporary file is left"
    assert finished(start()) == 0
    assert files() == reference
    assert before.items() <= units().items()
