"""Render a recipe's prompts into shards, resumable at each shard."""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline_lib.artifacts.dvc_cache import last_outs
from pipeline_lib.artifacts.fingerprints import digest_code, digest_path
from pipeline_lib.artifacts.records import iterate_lines, write_lines
from pipeline_lib.artifacts.shards import read_records
from pipeline_lib.artifacts.workdir import WorkDirectory
from pipeline_lib.errors import InputError
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.progress import ProgressBar
from pipeline_lib.synthesis.cluster import on_ray
from pipeline_lib.synthesis.defects import Tally
from pipeline_lib.synthesis.executors import Executor, RenderedShard, local
from pipeline_lib.synthesis.generator import locate
from pipeline_lib.synthesis.plan import Shard, plan_shards, shard_name
from pipeline_lib.synthesis.reuse import shards_in_cache
from pipeline_lib.synthesis.worker import make_worker

INDEX = "index.jsonl"
MOST_CPU_WORKERS = 4  # each holds its own copy of the generator


class Synthesis:
    """The rendering of one recipe: what is to be done, and what was."""

    def __init__(self, recipe: str, prompts: Path, generator: Path, params: Synthesize, runtime: Runtime) -> None:
        """Look at the inputs; nothing is loaded or written.

        Raises:
            InputError: the prompts or the generator are not usable.
        """
        locate(generator)
        self.recipe, self.params, self.runtime = recipe, params, runtime
        self.prompts, self.generator = prompts, generator.resolve()
        self.samples = sum(1 for _ in iterate_lines(prompts))
        if not self.samples:
            raise InputError(f"{prompts}: no prompts; `dvc repro` writes them")
        self.shards = -(-self.samples // params.shard_size)
        self.pixels = {
            "recipe": recipe,
            "prompts": digest_path(prompts),
            "generator": digest_path(generator),
            "params": params.model_dump(exclude={"max_bad_fraction"}),
            "code": digest_code(),
        }

    def plan(self) -> Iterator[Shard]:
        """All shards, in order, without holding them."""
        return plan_shards(iterate_lines(self.prompts), self.params.shard_size, self.params.seed)

    def work_on(self, first: int, last: int) -> dict[str, Any]:
        """Render the shards numbered `first` to `last` into the work directory alone, beside runs of other shards.

        Raises:
            InputError: there are no such shards, or another run renders some of them.
        """
        if not 0 <= first <= last < self.shards:
            raise InputError(f"--shards: expected numbers of 0 to {self.shards - 1}, found {first}-{last}")
        with WorkDirectory.locked("synthesize", self.pixels, part=f"{first}-{last}") as work:
            return self._render(work, range(first, last + 1))

    def run(self, out: Path) -> dict[str, Any]:
        """Render what is missing and write `out`: NNNNNN.tar and index.jsonl, a line a sample.

        Shards that an earlier dataset had are taken from DVC's cache. Returns facts for the provenance.

        Raises:
            InputError: another run renders the same dataset.
            RunError: too many images are bad, a worker died, a shard was altered.
        """
        identity = {**self.pixels, "max_bad_fraction": self.params.max_bad_fraction}
        with WorkDirectory.locked("synthesize", self.pixels) as work:
            earlier = last_outs(f"synthesize@{self.recipe}")
            self._take_over(work, earlier, f"{out.as_posix()}/{INDEX}")
            record = f"data/provenance/synthesize/{self.recipe}.json"
            for shard, tar, taken in shards_in_cache(earlier, out.as_posix(), record, identity, self.plan()):
                if not work.done(shard.name):
                    with work.writing(shard.name, **taken) as path:
                        path.write_bytes(tar)
            measured = self._render(work, range(self.shards))
            tally = Tally()
            with work.writing(INDEX) as path:
                write_lines(path, self._index(work, tally))
            tally.check(self.params.max_bad_fraction)
            names = [shard_name(number) for number in range(self.shards)]
            work.publish(out, [INDEX, *names])
            work.forget_published("recipe")
            shards = {name: work.facts(name) for name in names}
        return {
            "identity": identity,
            "images": tally.images,
            "bad_images": dict(tally.counts),
            "devices": dict(Counter(facts["device"] for facts in shards.values())),
            **measured,
            "shards": shards,
        }

    def _take_over(self, work: WorkDirectory, earlier: dict[str, Any], index: str) -> None:
        """Work that DVC has taken into its cache is not resumed: this is a forced run."""
        if work.done(INDEX) and index in earlier:
            with (work.units / INDEX).open("rb") as file:
                if hashlib.file_digest(file, "md5").hexdigest() == earlier[index].md5:
                    work.clear()

    def _render(self, work: WorkDirectory, numbers: range) -> dict[str, Any]:
        """Render the shards with these numbers that are not done. Returns what was measured."""
        size = self.params.shard_size
        total = min(numbers.stop * size, self.samples) - numbers.start * size
        missing = [number for number in numbers if not work.done(shard_name(number))]
        left = sum(min(size, self.samples - number * size) for number in missing)
        seconds = {"packing": 0.0, "writing": 0.0, "workers": 0.0}
        began = time.monotonic()
        if missing:
            wanted = set(missing)
            todo = (shard for shard in self.plan() if shard.number in wanted)
            with ProgressBar(f"synthesize {self.recipe}", total, total - left) as bar:

                def commit(shard: Shard, rendered: RenderedShard) -> None:
                    writing = time.monotonic()
                    facts = {"device": rendered.device, "seconds": round(rendered.seconds, 3)}
                    with work.writing(shard.name, **facts) as path:
                        path.write_bytes(rendered.tar)
                    seconds["packing"] += rendered.packing_seconds
                    seconds["workers"] += rendered.seconds
                    seconds["writing"] += time.monotonic() - writing
                    bar.advance(len(shard.samples), f"{bar.rate:.1f} images/s")

                worker = partial(make_worker, self.generator, self.params)
                executor(self.runtime, len(missing))(todo, worker, commit)
        wall = time.monotonic() - began
        return {
            "images_rendered_in_this_run": left,
            "images_per_second": round(left / wall, 3) if left else None,
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
        }

    def _index(self, work: WorkDirectory, tally: Tally) -> Iterator[dict[str, Any]]:
        """The lines of the index, each shard hashed once more before it is read."""
        for name in map(shard_name, range(self.shards)):
            work.verify(name)
            for record in read_records(work.units / name):
                yield {**record, "duplicate_of": tally.look(record), "shard": name}


def executor(runtime: Runtime, shards: int) -> Executor:
    """Where the shards are rendered.

    Raises:
        InputError: CUDA was asked for and there is none.
    """
    if runtime.executor == "ray":
        return partial(on_ray, runtime)
    cuda = torch.cuda.device_count()
    if runtime.device == "cuda" and not cuda:
        raise InputError("params.yaml: `runtime.device` is cuda, but torch sees no CUDA device; set it to auto or cpu")
    if cuda and runtime.device != "cpu":
        placement = [torch.device("cuda", number % cuda) for number in range(runtime.workers or cuda)]
    else:
        placement = [torch.device("cpu")] * (runtime.workers or min(torch.get_num_threads(), MOST_CPU_WORKERS))
    return partial(local, placement[:shards])
