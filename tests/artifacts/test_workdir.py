"""Resumable work: only what is whole and of the same identity is trusted."""

import json
import multiprocessing
from pathlib import Path

import pytest

from pipeline_lib.artifacts.files import atomic, atomic_directory
from pipeline_lib.artifacts.fingerprints import digest_path, fingerprint, seed_of
from pipeline_lib.artifacts.workdir import WorkDirectory, at_work
from pipeline_lib.errors import InputError


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


def write(work: WorkDirectory, unit: str, content: bytes) -> None:
    with work.writing(unit) as path:
        path.write_bytes(content)


def test_finished_units_survive_and_move_to_the_out(tmp_path: Path) -> None:
    with WorkDirectory.locked("stage", {"seed": 1}) as work:
        write(work, "a", b"1")
    with WorkDirectory.locked("stage", {"seed": 1}) as work:
        assert work.done("a")
        assert not work.done("b")
        write(work, "b", b"2")
        work.finish(tmp_path / "out", ["a", "b"])
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == {"a": b"1", "b": b"2"}
    with WorkDirectory.locked("stage", {"seed": 1}) as work:
        assert not work.done("a")


def test_published_units_are_kept_until_other_work_is_published_as_the_same_out(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"

    def publish(seed: int, out: Path) -> Path:
        with WorkDirectory.locked("stage", {"seed": seed}) as work:
            write(work, "unit", str(seed).encode())
            work.publish(out, ["unit"])
            return work.path

    first, second = publish(1, one), publish(2, other)
    publish(1, one)
    assert first.exists() and second.exists()
    with WorkDirectory.locked("stage", {"seed": 1}) as work:
        assert work.done("unit")
        third = publish(3, one)
        assert first.exists(), "another run holds it"
    publish(3, one)
    assert [path.exists() for path in (first, second, third)] == [False, True, True]
    assert (one / "unit").read_bytes() == b"3"
    assert (other / "unit").read_bytes() == b"2"


def test_altered_or_unjournalled_units_are_not_done() -> None:
    with WorkDirectory.locked("stage", {}) as work:
        write(work, "altered", b"1")
        write(work, "whole", b"1")
        (work.units / "altered").write_bytes(b"2")
        (work.units / "stray").write_bytes(b"1")
        with (work.path / "journal.jsonl").open("a") as journal:
            journal.write('{"unit": "cut sho')
    with WorkDirectory.locked("stage", {}) as work:
        assert [work.done(u) for u in ("altered", "whole", "stray")] == [False, True, False]
        write(work, "altered", b"1")
    with WorkDirectory.locked("stage", {}) as work:
        assert work.done("altered")


def test_an_error_leaves_no_unit() -> None:
    with WorkDirectory.locked("stage", {}) as work:
        with pytest.raises(RuntimeError), work.writing("a") as path:
            path.write_bytes(b"half")
            raise RuntimeError
        assert not work.done("a")
        assert list(work.units.iterdir()) == []


def test_other_identity_starts_anew_and_a_foreign_one_is_refused() -> None:
    with WorkDirectory.locked("stage", {"seed": 1}) as work:
        write(work, "a", b"1")
        record = work.path / "identity.json"
    with WorkDirectory.locked("stage", {"seed": 2}) as work:
        assert not work.done("a")
    record.write_text(json.dumps({"seed": 3}))
    with pytest.raises(InputError, match="another identity"), WorkDirectory.locked("stage", {"seed": 1}):
        pass


def hold(started: "multiprocessing.Event") -> None:
    with WorkDirectory.locked("stage", {}):
        started.set()
        multiprocessing.Event().wait(60)


def test_a_second_run_is_refused_until_the_first_is_dead() -> None:
    context = multiprocessing.get_context("fork")
    started = context.Event()
    first = context.Process(target=hold, args=(started,))
    first.start()
    assert started.wait(30)
    with pytest.raises(InputError, match="another run"), WorkDirectory.locked("stage", {}):
        pass
    first.kill()
    first.join()
    with WorkDirectory.locked("stage", {}):
        pass


def test_atomic_leaves_the_old_file_on_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "folder") as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_fingerprints(tmp_path: Path) -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1, "b": 3})
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/x").write_text("1")
    before = digest_path(tmp_path / "folder")
    (tmp_path / "folder/x").rename(tmp_path / "folder/y")
    assert digest_path(tmp_path / "folder") != before
    assert seed_of("n", 0, "k") != seed_of("n", 1, "k")
    assert 0 <= seed_of("n", 0, "k") < 2**63


def test_parts_run_side_by_side_and_are_at_work() -> None:
    with WorkDirectory.locked("stage", {}, part="0-1") as one, WorkDirectory.locked("stage", {}, part="2-3") as other:
        write(one, "a", b"1")
        write(other, "b", b"2")
        assert at_work(one.path)
        with pytest.raises(InputError, match="another run"), WorkDirectory.locked("stage", {}):
            pass
    assert not at_work(one.path)
    with WorkDirectory.locked("stage", {}) as whole:
        assert whole.done("a") and whole.done("b")
        assert at_work(whole.path)
        with pytest.raises(InputError, match="another run"), WorkDirectory.locked("stage", {}, part="0-1"):
            pass
