"""Tasks that are no shards, in real processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch

from pipeline_lib.errors import InputError, RunError
from pipeline_lib.execution.local import run_locally
from pipeline_lib.execution.placement import executor
from pipeline_lib.execution.tasks import AHEAD, Result, Worker
from pipeline_lib.params.runtime import Ray, Runtime
from tests.conftest import ROOT

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Word:
    key: str
    text: str


def make_worker(log: Path, device: torch.device) -> Worker[Word]:
    with log.open("a") as file:
        file.write(f"{os.getpid()} {device}\n")

    def work(word: Word) -> Result:
        if word.text == "bad":
            raise InputError(f"{word.key}: bad")
        if word.text == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        if word.text == "long":
            time.sleep(600)
        return Result(word.text.upper().encode(), {"process": os.getpid()})

    return work


def words(*texts: str) -> list[Word]:
    return [Word(f"word-{number}", text) for number, text in enumerate(texts)]


def run(log: Path, workers: int, todo: Iterable[Word]) -> dict[str, Result]:
    results: dict[str, Result] = {}
    run_locally([CPU] * workers, todo, partial(make_worker, log), lambda word, got: results.update({word.key: got}))
    return results


def made(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()]


def test_one_worker_is_this_process(tmp_path: Path) -> None:
    results = run(tmp_path / "log", 1, words("a", "b"))
    assert {key: result.content for key, result in results.items()} == {"word-0": b"A", "word-1": b"B"}
    assert made(tmp_path / "log") == [[str(os.getpid()), "cpu"]]


def test_a_process_for_each_of_several_workers(tmp_path: Path) -> None:
    drawn = 0

    def todo() -> Iterator[Word]:
        nonlocal drawn
        for word in words(*map(str, range(30))):
            drawn += 1
            yield word

    committed: dict[str, bytes] = {}

    def commit(word: Word, result: Result) -> None:
        assert drawn <= len(committed) + 2 * AHEAD, "tasks are drawn as workers become free"
        assert result.facts["process"] != os.getpid()
        committed[word.key] = result.content

    run_locally([CPU, CPU], todo(), partial(make_worker, tmp_path / "log"), commit)
    assert committed == {f"word-{number}": str(number).encode() for number in range(30)}
    processes = {process for process, _ in made(tmp_path / "log")}
    assert len(made(tmp_path / "log")) == len(processes) <= 2, "what tasks have in common is loaded once a process"


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_worker_is_raised_here(tmp_path: Path, workers: int) -> None:
    with pytest.raises(InputError, match="word-1: bad"):
        run(tmp_path / "log", workers, words("a", "bad"))


def test_an_error_leaves_one_line_though_other_processes_are_just_starting(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from pipeline_lib.errors import exit_code\n"
        "from tests.execution.test_local import run, words\n"
        "if __name__ == '__main__': sys.exit(exit_code(lambda: run(Path('log'), 4, words('bad', 'bad', 'bad'))))"
    )
    process = drive(tmp_path, script, stderr=subprocess.PIPE)
    _, said = process.communicate()
    assert process.returncode == 2
    assert said.count(b"\n") == 1


def test_a_worker_that_dies(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"while .*word-2.* under way.*finished work is kept") as error:
        run(tmp_path / "log", 2, words("a", "b", "deadly"))
    assert "\n" not in str(error.value)


def test_workers_die_with_their_parent(tmp_path: Path) -> None:
    parent = drive(
        tmp_path,
        "from pathlib import Path; from tests.execution.test_local import run, words\n"
        "if __name__ == '__main__': run(Path('log'), 2, words('long', 'long'))",
    )
    while not (tmp_path / "log").exists() or len(made(tmp_path / "log")) < 2:
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while any(is_alive(int(process)) for process, _ in made(tmp_path / "log")):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def drive(folder: Path, script: str, **options: int) -> subprocess.Popen:
    """A process that runs tasks; a script of its own, which spawned workers import anew."""
    (folder / "drive.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "drive.py"], cwd=folder, env=environment, **options)


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_caller_limits_the_workers_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    runtime = Runtime(device="cpu", threads=1, executor="local", ray=Ray(address="auto"), workers=0, cache_gib=1.0)
    assert executor(runtime, tasks=5, most_cpu_workers=2).args == ([CPU, CPU],)
    assert executor(runtime, tasks=1, most_cpu_workers=2).args == ([CPU],)
    assert executor(runtime.model_copy(update={"workers": 3}), tasks=5, most_cpu_workers=2).args == ([CPU] * 3,)
