"""Render a recipe's prompts into shards, resumable at each shard."""

import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pipeline_lib.artifacts.fingerprints import digest_path, fingerprint
from pipeline_lib.artifacts.records import PromptRow, iterate_lines, write_lines
from pipeline_lib.artifacts.shards import read_records
from pipeline_lib.artifacts.workdir import WorkDirectory
from pipeline_lib.errors import InputError
from pipeline_lib.execution.placement import executor
from pipeline_lib.execution.tasks import Result
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.progress import ProgressBar
from pipeline_lib.synthesis.check_generator import check_generator
from pipeline_lib.synthesis.defects import Tally
from pipeline_lib.synthesis.plan import Shard, plan_shards, shard_name
from pipeline_lib.synthesis.reuse import INDEX, EarlierDataset
from pipeline_lib.synthesis.version import VERSION
from pipeline_lib.synthesis.worker import make_worker

MOST_CPU_WORKERS = 4  # each holds its own copy of the generator


class Synthesis:
    """The rendering of one recipe: what is to be done, and what was."""

    def __init__(self, recipe: str, prompts: Path, generator: Path, params: Synthesize, runtime: Runtime) -> None:
        """Look at the inputs; nothing is loaded or written.

        Args:
            recipe: name of the recipe, which begins the keys of its samples.
            prompts: JSON-lines file of the recipe's prompts.
            generator: folder of a diffusers pipeline, or with a hub.json.
            params: section `synthesize` of params.yaml.
            runtime: section `runtime`, which determines no pixels.

        Raises:
            InputError: the prompts or the generator are not usable.
        """
        check_generator(generator, params)
        self.recipe, self.params, self.runtime = recipe, params, runtime
        self.prompts, self.generator = prompts, generator.resolve()
        self.samples = sum(1 for _ in iterate_lines(prompts, PromptRow))
        if not self.samples:
            raise InputError(f"{prompts}: no prompts; `dvc repro` writes them")
        self.shards = -(-self.samples // params.shard_size)
        self.pixels = {
            "recipe": recipe,
            "prompts": digest_path(prompts),
            "generator": digest_path(generator),
            "params": params.differences(without={"max_bad_fraction"}),
            "version": VERSION,
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

        Shards that the recipe's last dataset had are taken from DVC's cache. A forced run renders everything anew.
        Returns facts for the provenance.

        Raises:
            InputError: another run renders the same dataset.
            RunError: too many images are bad, a worker died, a shard was altered.
        """
        identity = {**self.pixels, "max_bad_fraction": self.params.max_bad_fraction}
        names = [shard_name(number) for number in range(self.shards)]
        with WorkDirectory.locked("synthesize", self.pixels) as work:
            earlier = EarlierDataset(self.recipe, out)
            if not earlier.is_forced(identity):
                self._reuse(work, earlier, identity)
            elif work.done(INDEX) and earlier.was_of(work.units / INDEX):
                work.clear()  # it was finished before this run
            measured = self._render(work, range(self.shards))
            digests = fingerprint({name: work.digest(name) for name in names})
            if not work.done(INDEX) or work.facts(INDEX)["shards"] != digests:
                with work.writing(INDEX, shards=digests) as path:
                    write_lines(path, self._index(work))
            tally = Tally()
            for row in iterate_lines(work.units / INDEX):
                tally.count(row)
            tally.check(self.params.max_bad_fraction)
            work.publish(out, [INDEX, *names])
            shards = {name: work.facts(name) for name in names}
        return {
            "identity": identity,
            "images": tally.images,
            "bad_images": dict(tally.counts),
            "devices": dict(Counter(facts["device"] for facts in shards.values())),
            **measured,
            "shards": shards,
        }

    def _reuse(self, work: WorkDirectory, earlier: EarlierDataset, identity: dict[str, Any]) -> None:
        """Enter the earlier dataset's shards that are not done as done."""
        if all(work.done(shard_name(number)) for number in range(self.shards)):
            return
        for shard, tar, facts in earlier.shards(identity, self.plan()):
            if not work.done(shard.key):
                with work.writing(shard.key, **facts) as path:
                    path.write_bytes(tar)

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

                def commit(shard: Shard, rendered: Result) -> None:
                    writing = time.monotonic()
                    with work.writing(shard.key, **rendered.facts) as path:
                        path.write_bytes(rendered.content)
                    seconds["packing"] += rendered.facts["packing_seconds"]
                    seconds["workers"] += rendered.facts["seconds"]
                    seconds["writing"] += time.monotonic() - writing
                    bar.advance(len(shard.samples), f"{bar.rate:.1f} images/s")

                worker = partial(make_worker, self.generator, self.params)
                executor(self.runtime, len(missing), MOST_CPU_WORKERS)(todo, worker, commit)
        wall = time.monotonic() - began
        return {
            "images_rendered_in_this_run": left,
            "images_per_second": round(left / wall, 3) if left else None,
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
        }

    def _index(self, work: WorkDirectory) -> Iterator[dict[str, Any]]:
        """The rows of the index, each shard hashed once more before it is read."""
        first: dict[bytes, str] = {}  # key of the first sample with these pixels, by their digest
        for name in map(shard_name, range(self.shards)):
            work.verify(name)
            for record in read_records(work.units / name):
                original = first.setdefault(bytes.fromhex(record["pixel_sha256"]), record["key"])
                yield {**record, "duplicate_of": None if original == record["key"] else original, "shard": name}
