"""Shards on a local Ray cluster of two nodes: the bytes of a local run, also where an actor is killed."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline_lib.artifacts.records import write_lines
from pipeline_lib.errors import InputError
from pipeline_lib.params.base import read
from pipeline_lib.params.runtime import Ray, Runtime
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.synthesis import synthesize
from pipeline_lib.synthesis.synthesize import Synthesis
from tests.conftest import ROOT

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture
def prompts(workspace: Path) -> Path:
    path = workspace / "prompts.jsonl"
    row = {"negative_prompt": "", "classes": [0, 1], "weights": [0.5, 0.5]}
    write_lines(path, ({"key": f"mixup-{i:06d}", "prompt": "a b", **row} for i in range(24)))
    (workspace / "pipeline_lib").symlink_to(ROOT / "pipeline_lib")  # the folder that the cluster's machines share
    return path


def run(prompts: Path, out: str, **changes: object) -> dict[str, bytes]:
    runtime = read(Runtime, "runtime").model_copy(update={"device": "cpu", "workers": 1, **changes})
    params = read(Synthesize, "synthesize")
    Synthesis(out, prompts, Path("world/generator"), params, runtime).run(Path(out))
    return {path.name: path.read_bytes() for path in Path(out).iterdir()}


def test_two_nodes_give_the_bytes_of_a_local_run(prompts: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = {"executor": "ray", "ray": Ray(address=address), "workers": 2}
    assert run(prompts, "cluster", **cluster) == run(prompts, "alone")

    make, victim = synthesize.make_worker, prompts.parent / "victim"

    def make_worker(*arguments: object) -> object:  # a nested function travels to the actors by value
        worker = make(*arguments)

        def render(shard: object) -> object:
            if shard.number == 2 and not victim.exists():
                victim.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return worker(shard)

        return render

    monkeypatch.setattr(synthesize, "make_worker", make_worker)
    assert run(prompts, "killed", **cluster) == run(prompts, "alone")
    assert victim.exists()


def test_no_cluster(prompts: Path, address: str) -> None:
    with pytest.raises(InputError, match="no Ray cluster at '127.0.0.1:1'"):
        run(prompts, "none", executor="ray", ray=Ray(address="127.0.0.1:1"))
    with pytest.raises(InputError, match="the Ray cluster has 2 CPUs; params.yaml asks for 9"):
        run(prompts, "none", executor="ray", ray=Ray(address=address), workers=9)
