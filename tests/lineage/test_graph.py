"""The graph of runs: long chains, circles, folders of many outs, and the way of real images."""

from typing import Any

from pipeline_lib.lineage.graph import Graph
from pipeline_lib.lineage.pipeline import Run
from pipeline_lib.lineage.records import Record

DIGEST = "0" * 32


def run(name: str, reads: list[str], writes: list[str]) -> Run:
    return Run(name, "", dict.fromkeys(reads, DIGEST), {}, dict.fromkeys(writes, DIGEST))


def record(**kinds: Any) -> Record:
    """A record of inputs of these kinds, by path."""
    return Record(
        format=2,
        stage="",
        name="",
        dvc_stage=None,
        cmd="",
        git_commit=None,
        git_clean=None,
        packages={},
        processor="",
        wall_seconds=0.0,
        outs={},
        inputs={path: {"digest": DIGEST, "kind": kind} for path, kind in kinds.items()},
        params={},
        code={},
        foreign_code=[],
    )


def chain(length: int) -> dict[str, Run]:
    return {f"s{i}": run(f"s{i}", [f"out{i - 1}"] if i else ["source"], [f"out{i}"]) for i in range(length)}


def test_a_chain_longer_than_the_stack_is_walked() -> None:
    graph = Graph(chain(5000), {"s0": record(source="real images")})
    assert graph.ancestors("s4999")[::4999] == ["s0", "s4999"]
    assert graph.cycle() == []
    way = graph.way_of_real_images("s4999")
    assert len(way) == 5000 and way[-1] == ("source", "real images")


def test_a_circle_is_found_and_ends() -> None:
    runs = {**chain(3), "s0": run("s0", ["out2"], ["out0"])}
    graph = Graph(runs, {})
    assert set(graph.cycle()) == {"s0", "s1", "s2"}
    assert set(graph.ancestors("s1")) == {"s0", "s1", "s2"}
    assert graph.way_of_real_images("s1") == []


def test_a_folder_of_outs_and_a_file_inside_an_out_lead_to_their_producers() -> None:
    runs = {name: run(name, [], [f"data/{name}"]) for name in ("a", "b")}
    runs["all"] = run("all", ["data"], ["report"])
    runs["one"] = run("one", ["data/a/index"], ["other"])
    graph = Graph({**runs, "near": run("near", ["data/ab"], ["third"])}, {})
    assert graph.ancestors("all") == ["a", "b", "all"]
    assert graph.ancestors("one") == ["a", "one"]
    assert graph.ancestors("near") == ["near"], "a path that only begins alike"


def test_an_input_that_only_the_record_has_is_in_the_graph() -> None:
    graph = Graph(chain(2), {"s1": record(photos="real images")})
    assert graph.way_of_real_images("s1") == [("photos", "real images")]
    assert graph.kind("s1", "out0") == "unknown"
    assert graph.kind("s1", "stages/a.py") == "code"
