"""What reaches the command line: one line and an exit code for input and machine, a traceback for our own mistakes."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from pipeline_lib.errors import InputError, RunError, as_told, exit_code, one_line, printable, reading, refusing, shown
from pipeline_lib.yaml_file import MOST_LEVELS, parse_yaml, read_yaml
from tests.conftest import ROOT, edit_params

CLASSES = "data/fashion/classes.csv"


def run(
    folder: Path, *command: str, limit: tuple[int, int] | None = None, stdout: str | None = None
) -> subprocess.CompletedProcess[str]:
    """A real command in a folder, with a limit of the system, and its output into a file."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

    def restrict() -> None:
        if limit is not None:
            resource.setrlimit(limit[0], (limit[1], limit[1]))

    with open(stdout or os.devnull, "w") as output:
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            preexec_fn=restrict,
        )


def the_error(finished: subprocess.CompletedProcess[str]) -> str:
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def told(error: Exception, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    def command() -> None:
        raise error

    code = exit_code(command)
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out"), 1, "free some space"),
        (OSError(errno.EFBIG, "File too large"), 1, "ulimit -f"),
        (OSError(errno.EROFS, "Read-only file system", "out"), 1, "can be written"),
        (OSError(errno.EMFILE, "Too many open files", "in"), 1, "ulimit -n"),
        (OSError("73728 requested and 16384 written"), 1, "free some space"),
        (MemoryError("Unable to allocate 2 TiB"), 1, "out of memory; lower"),
        (torch.OutOfMemoryError("CUDA out of memory."), 1, "out of memory; lower"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), 1, "lower"),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), 1, "free some"),
        (SafetensorError("Error while deserializing header: header too small"), 2, "header too small"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), 2, "File name too long"),
        (PermissionError(errno.EACCES, "Permission denied", "in"), 2, "in: Permission denied"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", b"na\xefve"), 2, r"na\udcefve: Is a directory"),
        (RecursionError("maximum recursion depth exceeded"), 2, "nested too deeply"),
        (UnicodeEncodeError("utf-8", "na\udcefve", 3, 4, "surrogates not allowed"), 2, "UTF-8"),
        (InputError("two\nlines \x1b[31m \x00"), 2, r"two\nlines \x1b[31m \x00"),
        (RunError("a worker died"), 1, "a worker died"),
    ],
)
def test_what_is_told(error: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    found, text = told(error, capsys)
    assert found == code
    assert text.startswith("error: ") and text.count("\n") == 1
    assert said in text


@pytest.mark.parametrize("error", [TypeError("x"), KeyError("x"), AssertionError(), ValueError("x"), RuntimeError("x")])
def test_a_mistake_in_the_program_keeps_its_traceback(error: Exception) -> None:
    assert as_told(error) is None

    def command() -> None:
        raise error

    with pytest.raises(type(error)):
        exit_code(command)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file"), "x.json: not found; mend it"),
        (IsADirectoryError(errno.EISDIR, "Is a directory"), "x.json: cannot be read (Is a directory); expected JSON"),
        (KeyError("name"), "x.json: not JSON (KeyError 'name'); mend it"),
        (ValueError("a\n b"), "x.json: not JSON (a b); mend it"),
        (EOFError(), "x.json: not JSON (EOFError); mend it"),
        (RecursionError("x"), "nested too deeply"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "not JSON in UTF-8"),
    ],
)
def test_a_reader_names_the_file(error: Exception, said: str) -> None:
    with pytest.raises(InputError) as raised, reading(Path("x.json"), "JSON", "mend it"):
        raise error
    assert said in str(raised.value)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOSPC, "full"), RunError("x"), InputError("y")])
def test_a_reader_leaves_the_machine_to_the_boundary(error: Exception) -> None:
    with pytest.raises(type(error)), reading(Path("x.json"), "JSON", "mend it"):
        raise error


def test_what_is_shown_is_short() -> None:
    assert len(one_line(ValueError("x" * 10_000))) < 500
    recursive: list[object] = []
    recursive.append(recursive)
    for value in ("x" * 10_000, list(range(10_000)), {n: n for n in range(1000)}, recursive, 16**5000, 10**2000):
        assert len(shown(value)) < 500
    assert printable("a\u00e9\u4e2d b") == "a\u00e9\u4e2d b"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["pipeline_lib", "nothing"], "No such command"),
        (["pipeline_lib", "preset"], "Missing argument"),
        (["pipeline_lib", "import-classifier", "x", "--classes", "0", "--into", "y"], "'--classes'"),
        (["pipeline_lib", "import-classifier", "x", "--size", "x"], "'--size'"),
        (["pipeline_lib", "import-classifier", "x", "--si\nze"], "No such option: --si"),
        (["pipeline_lib", "bench", "nothing"], "No such command"),
        (["pipeline_lib", "nothing" * 1000], "No such command"),
        (["stages.calibrate", "noise", "resnet", "--images", "x"], "Invalid value for '--images'"),
        (["stages.calibrate", "noise", "resnet"], "Missing option '--images'"),
        (["stages.prompts"], "Missing argument"),
        (["stages.prompts", "a", "b"], "unexpected extra argument"),
    ],
)
def test_a_wrong_command_line(command: list[str], said: str, tmp_path: Path) -> None:
    finished = run(tmp_path, *command)
    assert finished.returncode == 2
    assert said in the_error(finished)
    assert "--help` lists" in finished.stderr and len(finished.stderr) < 600


@pytest.mark.parametrize("command", ["pipeline_lib --help", "pipeline_lib bench", "stages.prompts --help"])
def test_help_is_no_error(command: str, tmp_path: Path) -> None:
    finished = run(tmp_path, *command.split(), stdout=str(tmp_path / "out"))
    assert finished.returncode == (0 if "--help" in command else 2)
    assert not finished.stderr and "Usage" in (tmp_path / "out").read_text()


def test_output_that_cannot_be_written(workspace: Path) -> None:
    (workspace / "params.yaml").unlink()
    finished = run(workspace, "pipeline_lib", "preset", "default", stdout="/dev/full")
    assert finished.returncode == 1
    assert "No space left on device; free some space" in the_error(finished)


@pytest.mark.parametrize(
    ("command", "bytes_"),
    [
        (["stages.prompts", "single"], 1000),
        (["stages.calibrate", "noise", "resnet", "--images", "noise"], 20_000),
    ],
)
def test_files_that_may_not_grow(workspace: Path, command: list[str], bytes_: int) -> None:
    finished = run(workspace, *command, limit=(resource.RLIMIT_FSIZE, bytes_))
    assert finished.returncode == 1
    assert "run again" in the_error(finished)
    assert not [path for path in (workspace / "data").rglob("*") if path.is_file() and path != workspace / CLASSES]


def test_too_little_memory(workspace: Path) -> None:
    edit_params(workspace / "params.yaml", **{"calibrate.count": 1_000_000})
    command = ["stages.calibrate", "noise", "resnet", "--images", "noise"]
    finished = run(workspace, *command, limit=(resource.RLIMIT_AS, 2 << 30))
    assert finished.returncode == 1
    assert "out of memory; lower counts" in the_error(finished)
    assert not (workspace / "data/calibration").exists()


def test_from_a_folder_of_the_project(workspace: Path) -> None:
    (workspace / "dvc.yaml").write_text("stages: {}\n")
    below = workspace / "data/fashion"
    for command in (["stages.prompts", "single"], ["pipeline_lib", "doctor"]):
        finished = run(below, *command)
        assert finished.returncode == 2
        assert f"run this in {workspace.resolve()}" in the_error(finished)


def test_from_a_folder_that_is_no_project(tmp_path: Path) -> None:
    finished = run(tmp_path, "pipeline_lib", "doctor")
    assert finished.returncode == 2
    assert "params.yaml: not found; `python -m pipeline_lib preset default` writes one" in the_error(finished)


def nested(levels: int) -> str:
    return "a: " + "[" * levels + "]" * levels


def aliases(levels: int, merged: bool = False) -> str:
    first = "a0: &a0 {x: 1}\n" if merged else "a0: &a0 [x]\n"
    values = "{{<<: [{}], y{}: 1}}" if merged else "[{}]"
    rows = (f"a{n}: &a{n} " + values.format(", ".join([f"*a{n - 1}"] * 9), n) for n in range(1, levels + 1))
    return first + "\n".join(rows)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "x.yaml:3: key `a` stands there twice"),
        ("a:\n\t- b\n", "x.yaml:2: not valid YAML"),
        ("a: [1", "not valid YAML"),
        ("a: !!python/object:os.system x\n", "could not determine a constructor for the tag"),
        ("a: \x00", "control characters are not allowed"),
        ("a: 2001-99-99", "month must be in 1..12"),
        ("a: !!int x", "invalid literal"),
        ("a: !!bool x", "not valid YAML"),
        (f"a: {'9' * 5000}", "digits"),
        (f"a: 0x{'f' * 5000}", "more than 1000 digits"),
        ("{a: 1}: 3", "unhashable key"),
        (nested(MOST_LEVELS), "levels of mappings and lists"),
        (nested(200_000), "levels of mappings and lists"),
        (aliases(12), "aliases followed"),
        (aliases(12, merged=True), "aliases followed"),
        ("", "expected a mapping, found NoneType"),
        ("a: 1\n---\nb: 2\n", "another document"),
    ],
    ids=range(17),
)
def test_yaml_that_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        parse_yaml(text, Path("x.yaml"))
    assert said in str(error.value)
    assert str(error.value).startswith("x.yaml") and len(str(error.value)) < 500 and "\n" not in str(error.value)


def test_yaml_that_is_read() -> None:
    assert parse_yaml(nested(MOST_LEVELS - 1), Path("x.yaml"))
    assert parse_yaml(aliases(3, merged=True) + "\nb: *a3", Path("x.yaml"))["b"]["y3"] == 1


@pytest.mark.parametrize("content", [b"\xff\xfea", b"na\xefve: 1"])
def test_yaml_of_other_letters(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not valid YAML in UTF-8"):
        read_yaml(path, "mend")


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to(path)], ids=["folder", "loop"])
def test_yaml_that_is_no_file(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x.yaml")
    with pytest.raises(InputError, match=r"x\.yaml: cannot be read"):
        read_yaml(tmp_path / "x.yaml", "mend")


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOSPC, "No space left on device"), RunError("x")])
def test_what_the_machine_lacks_is_no_fault_of_the_input(error: Exception) -> None:
    with pytest.raises(type(error)) as found, refusing(lambda _: "a fault of the input"):
        raise error
    assert found.value is error


def test_whatever_else_a_library_raises_is_a_fault_of_the_input() -> None:
    for error in (ValueError(), AssertionError(), OSError("truncated"), KeyError("x")):
        with pytest.raises(InputError, match="a fault of the input"), refusing(lambda _: "a fault of the input"):
            raise error
