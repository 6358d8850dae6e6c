"""The dataset of a recipe's last finished run, whose shards are taken from DVC's cache instead of being rendered."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from pipeline_lib.artifacts.dvc_cache import last_run
from pipeline_lib.artifacts.records import iterate_lines
from pipeline_lib.synthesis.plan import Shard

INDEX = "index.jsonl"


class EarlierDataset:
    """What DVC's cache has of the dataset, and what was recorded of its rendering."""

    def __init__(self, recipe: str, out: Path) -> None:
        """Read dvc.lock, the provenance and the index; out: folder of the dataset.

        Raises:
            RunError: DVC does not say where its cache is.
        """
        self._run, self._folder = last_run(f"synthesize@{recipe}"), out.as_posix()
        content = self._read(f"data/provenance/synthesize/{recipe}.json")
        self._provenance: dict[str, Any] = json.loads(content or "{}")
        self._identity: dict[str, Any] = self._provenance.get("identity", {})

    def _read(self, path: str) -> bytes | None:
        file = self._run.outs.get(path)
        return file.read() if file else None

    def is_forced(self, identity: dict[str, Any]) -> bool:
        """Whether a run of this identity is one that was forced: nothing at all has changed since the last."""
        return self._identity == identity and self._run.same_code_and_params

    def was_of(self, index: Path) -> bool:
        """Whether it was made of finished work with this index, by the same code."""
        return self._run.was_of(index, f"{self._folder}/{INDEX}")

    def shards(self, identity: dict[str, Any], plan: Iterable[Shard]) -> Iterator[tuple[Shard, bytes, dict[str, Any]]]:
        """Shards of the plan that the dataset has, with their bytes and what was recorded of them.

        All that determines pixels but the prompts must be the same; they are compared sample by sample.
        """
        index = self._run.outs.get(f"{self._folder}/{INDEX}")
        if index is None or not index.is_whole() or _besides_prompts(self._identity) != _besides_prompts(identity):
            return
        rows = groupby(iterate_lines(index.path), key=lambda row: row["shard"])
        for shard, (name, cached) in zip(plan, rows, strict=False):
            if name == shard.key and _are_of(list(cached), shard.samples):
                tar = self._read(f"{self._folder}/{name}")
                if tar is not None:
                    yield shard, tar, self._provenance["shards"][name]


def _besides_prompts(identity: dict[str, Any]) -> dict[str, Any]:
    """What determines pixels besides the prompts."""
    return {name: value for name, value in identity.items() if name not in ("prompts", "max_bad_fraction")}


def _are_of(rows: Sequence[dict[str, Any]], samples: Sequence[dict[str, Any]]) -> bool:
    """Whether these rows of an index are of these samples, with the same prompts and seeds."""
    return len(rows) == len(samples) and all(row | sample == row for row, sample in zip(rows, samples, strict=True))
