"""Malformed input of every kind through the real commands: exit code 0, or 2 with one line; nothing half-written.

Each test mutates one kind of file, many times, and runs cheap stages on it in this process; every fiftieth example also
runs as a command of its own. Examples are the same in every run.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import tiny_params
from tests.test_boundary import run

EVERY = 50  # examples: the last of them is a command as well
PROMPTS, NOISE = ["prompts", "single"], ["calibrate", "noise", "resnet", "--images", "noise"]
REAL, FLOAT = ["calibrate", "real", "resnet", "--images", "real"], ["evaluate_float", "resnet"]

Judge = Callable[[list[str]], None]


def examples(number: int) -> settings:
    allowed = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=number, derandomize=True, deadline=None, database=None, suppress_health_check=[*allowed]
    )


@pytest.fixture
def judge(workspace: Path, stage: Callable[..., int]) -> Judge:
    """Run a stage on the workspace as it is now, and hold it to what is promised; what it wrote is removed."""
    params = tiny_params()
    params["prompts"]["single"]["count"] = params["calibrate"]["count"] = 4
    (workspace / "params.yaml").write_text(yaml.safe_dump(params))
    numbers = count(1)
    kept = {path for path in workspace.rglob("*") if path.is_file()}

    def promised(code: int, stderr: str) -> None:
        assert "Traceback" not in stderr
        errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
        assert (code, len(errors)) in ((0, 0), (2, 1)), stderr
        written = {path for path in (workspace / "data").rglob("*") if path.is_file()} - kept
        assert code == 0 or not written
        for folder in ("prompts", "calibration", "preview", "evaluation", "provenance"):
            shutil.rmtree(workspace / "data" / folder, ignore_errors=True)

    def check(command: list[str]) -> None:
        stderr = io.StringIO()
        with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
            code = stage(*command)
        promised(code, stderr.getvalue())
        if next(numbers) % EVERY == 0:
            finished = run(workspace, f"stages.{command[0]}", *command[1:])
            promised(finished.returncode, finished.stderr)
            assert finished.returncode == code

    return check


@contextlib.contextmanager
def replaced(path: Path, content: bytes) -> Iterator[None]:
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


# --- what is odd ---

WORDS = [
    "",
    " ",
    "x",
    "\0",
    "a\nb",
    "x" * 300,
    "\u200b",
    "na\u00efve",
    "../..",
    "{}",
    "{0}",
    "-1",
    "nan",
    "1e9",
    "\u4e2d",
]
odd_text = st.sampled_from(WORDS) | st.text(max_size=8)
odd_number = st.one_of(
    st.integers(-2, 12),
    st.sampled_from([10**9, 10**12, 2**63, 2**64, 10**30, -(2**63) - 1]),
    st.sampled_from([0.001, -0.5, 1e-300, 1e300, float("nan"), float("inf")]),
)
odd_leaf = st.one_of(st.none(), st.booleans(), odd_number, odd_text)
odd_value = st.recursive(
    odd_leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_text, inner, max_size=2)
)


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@st.composite
def changed(draw: st.DrawFn, value: Any, odd: st.SearchStrategy[Any] = odd_value) -> Any:
    """The value with one thing in it dropped, added, or replaced by an odd one."""
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(value)))
        rest = {name: inner for name, inner in value.items() if name != key}
        match draw(st.sampled_from(["inside", "inside", "inside", "drop", "rename", "add"])):
            case "inside":
                return {**rest, key: draw(changed(value[key], odd))}
            case "drop":
                return rest
            case "rename":
                return {**rest, draw(odd_text): value[key]}
            case _:
                return {**value, draw(odd_text): draw(odd)}
    if isinstance(value, list) and value and draw(st.booleans()):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], draw(changed(value[place], odd)), *value[place + 1 :]]
    return draw(odd)


@st.composite
def damaged(draw: st.DrawFn, content: bytes, tokens: tuple[bytes, ...] = (b"\0", b"\xff", b"\n")) -> bytes:
    """The bytes, cut short, with others in their place, or with something put in or left out."""
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(content)))
        match draw(st.sampled_from(["cut", "flip", "insert", "leave out"])):
            case "cut":
                content = content[:place]
            case "flip":
                content = content[:place] + draw(st.binary(min_size=1, max_size=2)) + content[place + 1 :]
            case "insert":
                content = content[:place] + draw(st.sampled_from(tokens)) + content[place:]
            case _:
                content = content[:place] + content[place + draw(st.integers(1, 40)) :]
    return content


# --- params.yaml ---

YAML_TOKENS = (
    b"\t",
    b"- ",
    b"&a ",
    b"*a ",
    b"<<: ",
    b"!!int ",
    b"!!python/object:a.b ",
    b"{",
    b"]",
    b"? ",
    b": ",
    b"'",
)
params_value = odd_value | st.sampled_from([nested(300), {1: 2}, {None: 1}, date(2001, 1, 1), b"x", "a" * 10_000])


@pytest.mark.parametrize("number", range(3))  # the examples of a test are run in one process; these in up to three
@examples(EVERY)
@given(data=st.data())
def test_params(number: int, data: st.DataObject, workspace: Path, judge: Judge) -> None:
    path = workspace / "params.yaml"
    params, commands = yaml.safe_load(path.read_text()), (PROMPTS, NOISE, FLOAT)
    section = data.draw(st.sampled_from(["task", "axes", "prompts", "calibrate", "evaluate", "runtime", "study"]))
    if number == 2:
        content = data.draw(damaged(path.read_bytes(), (*YAML_TOKENS, b"\0", b"\xff")))
    else:
        params[section] = data.draw(changed(params[section], params_value))
        content = yaml.dump(params, allow_unicode=True).encode("utf-8", "surrogatepass")
    with replaced(path, content):
        judge(data.draw(st.sampled_from(commands)))


# --- class lists ---


@st.composite
def class_list(draw: st.DrawFn, content: bytes) -> bytes:
    match draw(st.sampled_from(["damaged", "cells", "encoding"])):
        case "damaged":
            return draw(damaged(content, (b",", b'"', b"\r", b"\n", b"\0", b"\xef\xbb\xbf", b"\xe9")))
        case "encoding":
            encoding = draw(st.sampled_from(["utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252", "utf-7"]))
            return content.decode().replace("shirt", "chemis\u00e9").encode(encoding)
    rows = list(csv.reader(content.decode().splitlines()))
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.integers(0, len(rows) - 1))
        column = draw(st.integers(0, 2))
        rows[row] = rows[row][:column] + draw(st.lists(odd_text, max_size=2)) + rows[row][column + 1 :]
    text = io.StringIO()
    csv.writer(text, quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))).writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


@examples(EVERY)
@given(data=st.data())
def test_class_lists(data: st.DataObject, workspace: Path, judge: Judge) -> None:
    path = workspace / "data/fashion/classes.csv"
    with replaced(path, data.draw(class_list(path.read_bytes()))):
        judge(data.draw(st.sampled_from([PROMPTS, FLOAT])))


# --- pictures, in folders and tars ---


def picture(mode: str, form: str, size: tuple[int, int] = (9, 7)) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 1).save(file, form)
    return file.getvalue()


BOMB = picture("L", "PNG")[:16] + (60_000).to_bytes(4, "big") * 2 + picture("L", "PNG")[24:]
PICTURES = [
    *(picture(mode, "PNG") for mode in ("RGB", "L", "1", "P", "LA", "RGBA", "I;16")),
    *(picture("RGB", form) for form in ("JPEG", "GIF", "BMP", "WEBP", "TIFF")),
    *(picture("CMYK", form) for form in ("JPEG", "TIFF")),
    picture("RGB", "PNG", (1, 300)),
]
NOT_PICTURES = [b"", b"\0", b"not a picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", BOMB]
contents = st.one_of(
    st.sampled_from(PICTURES),
    st.sampled_from(PICTURES).flatmap(damaged),
    st.sampled_from(NOT_PICTURES),
)
FOLDERS = ["0", "1", "9", "10", "-1", "bag", "Bag", "n01440764", ".hidden", "__MACOSX", "ankle boot", "\u4e2d", "0.png"]
STEMS = ["a", "b", ".a", "._a", "a.b", "na\u00efve", "line\nbreak", "x" * 240, "na\udcefve"]
SUFFIXES = [".png", ".PNG", ".jpg", ".JPEG", ".webp", ".gif", ".bmp", ".tiff", ".txt", "", ".json", ".csv", ".db"]
names = st.tuples(st.sampled_from(STEMS), st.sampled_from(SUFFIXES)).map("".join)


@examples(2 * EVERY)
@given(data=st.data())
def test_image_folders(data: st.DataObject, workspace: Path, judge: Judge) -> None:
    folder = workspace / "world/test"
    whole = folder.rename(folder.with_name("whole"))
    try:
        folder.mkdir()
        for inner in data.draw(st.lists(st.sampled_from(FOLDERS), max_size=4, unique=True)):
            (folder / inner).mkdir()
            for name, content in data.draw(st.dictionaries(names, contents, max_size=3)).items():
                (folder / inner / name).write_bytes(content)
        for name, content in data.draw(st.dictionaries(names, contents, max_size=1)).items():
            if not (folder / name).exists():
                (folder / name).write_bytes(content)
        if data.draw(st.integers(0, 5)) == 0:
            (folder / "labels.csv").write_bytes(data.draw(damaged(b"file,class\na.png,0\nb.png,bag\n")))
        if data.draw(st.integers(0, 5)) == 0:
            os.symlink("link", folder / "link")
        judge(FLOAT)
    finally:
        shutil.rmtree(folder)
        whole.rename(folder)


MEMBERS = [
    "a.png",
    "a.cls",
    "a.json",
    "b.jpg",
    "b.cls",
    "b.txt",
    "d/a.png",
    "d/a.cls",
    "c",
    ".x",
    "../e.png",
    "na\u00efve.png",
]
labels = st.sampled_from([b"0", b"9\n", b"10", b"-1", b"", b"x", b"bag", b"1.5", b"9" * 5000, b"\xff", b"\xb2"])
records = st.one_of(
    st.just(b"{}"),
    changed({"key": "a", "classes": [1], "png_sha256": hashlib.sha256(PICTURES[0]).hexdigest()}).map(
        lambda value: json.dumps(value).encode()
    ),
    st.sampled_from([b"[" * 50_000, b"null", b"", b"\xff", b'{"key": "\\ud800"}', b"{" + b'"a":' * 9]),
)


@st.composite
def tar(draw: st.DrawFn) -> bytes:
    """Samples in WebDataset's layout, or something like it."""
    file = io.BytesIO()
    with tarfile.open(
        fileobj=file, mode="w", format=draw(st.sampled_from([tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT]))
    ) as out:
        for name in draw(st.lists(st.sampled_from(MEMBERS), max_size=6)):
            kinds = {".cls": labels, ".json": records}
            content = draw(kinds.get(name[-4:], kinds.get(name[-5:], contents)))
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.type = draw(st.sampled_from([tarfile.REGTYPE] * 8 + [tarfile.SYMTYPE, tarfile.DIRTYPE]))
            out.addfile(member, io.BytesIO(content))
    content = file.getvalue()
    return draw(damaged(content)) if draw(st.integers(0, 3)) == 0 else content


@examples(EVERY)
@given(data=st.data())
def test_tars(data: st.DataObject, workspace: Path, judge: Judge) -> None:
    real, content = workspace / "world/real.tar", data.draw(tar())
    if data.draw(st.booleans()):
        with replaced(real, data.draw(damaged(real.read_bytes())) if data.draw(st.booleans()) else content):
            judge(REAL)
    else:
        folder = workspace / "world/test"
        whole = folder.rename(folder.with_name("whole"))
        try:
            folder.mkdir()
            (folder / "000000.tar").write_bytes(content)
            judge(FLOAT)
        finally:
            shutil.rmtree(folder)
            whole.rename(folder)


# --- a classifier ---


@examples(2 * EVERY)
@given(data=st.data())
def test_model_json(data: st.DataObject, workspace: Path, judge: Judge) -> None:
    path = workspace / "world/classifiers/resnet/model.json"
    card = json.loads(path.read_text())
    if data.draw(st.integers(0, 3)):
        content = json.dumps(data.draw(changed(card))).encode()
    else:
        content = data.draw(damaged(path.read_bytes(), (b"{", b'"', b"[" * 50_000, b"9" * 5000, b"\\ud800", b"\xff")))
    with replaced(path, content):
        judge(data.draw(st.sampled_from([NOISE, FLOAT])))


@st.composite
def weights(draw: st.DrawFn, content: bytes) -> bytes:
    """A safetensors file whose header is changed, or whose bytes are damaged."""
    if draw(st.integers(0, 2)) == 0:
        return draw(damaged(content))
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    tensor = draw(st.sampled_from(sorted(header)))
    header[tensor] = draw(changed(header[tensor]))
    text = json.dumps(draw(changed(header)) if draw(st.booleans()) else header).encode()
    size = draw(st.sampled_from([len(text)] * 6 + [0, len(text) - 1, len(text) + 1, 2**40, 2**64 - 1]))
    return size.to_bytes(8, "little") + text + content[end:]


@examples(EVERY)
@given(data=st.data())
def test_safetensors(data: st.DataObject, workspace: Path, judge: Judge) -> None:
    folder = workspace / "world/classifiers/resnet"
    content = data.draw(weights((folder / "model.safetensors").read_bytes()))
    card = json.loads((folder / "model.json").read_text())
    if data.draw(st.integers(0, 3)):  # or else the digest does not fit
        card["sha256"] = hashlib.sha256(content).hexdigest()
    with replaced(folder / "model.safetensors", content), replaced(folder / "model.json", json.dumps(card).encode()):
        judge(FLOAT)
