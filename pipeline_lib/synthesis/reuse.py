"""Shards of an earlier, shorter or longer dataset, found in DVC's cache instead of being rendered again."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from pipeline_lib.artifacts.dvc_cache import CachedFile
from pipeline_lib.synthesis.plan import Shard


def shards_in_cache(
    outs: dict[str, CachedFile], folder: str, record: str, identity: dict[str, Any], plan: Iterable[Shard]
) -> Iterator[tuple[Shard, bytes, dict[str, Any]]]:
    """Shards of the plan that the last finished run rendered, with their bytes and what was recorded of them.

    outs: the run's files by path; folder: of the dataset; record: path of the provenance, which says what the run's
    identity was. All that determines pixels but the prompts must be the same. A run in which nothing at all has changed
    is a forced one: nothing is taken from the cache then.
    """
    content = outs[record].read() if record in outs else None
    index = outs[f"{folder}/index.jsonl"].read() if f"{folder}/index.jsonl" in outs else None
    if content is None or index is None:
        return
    provenance = json.loads(content)
    earlier = provenance.get("identity", {})
    if earlier == identity or _of_pixels(earlier) != _of_pixels(identity):
        return
    rows = map(json.loads, index.splitlines())
    for shard, (name, cached) in zip(plan, groupby(rows, key=lambda row: row["shard"]), strict=False):
        file = outs.get(f"{folder}/{name}")
        if file is not None and name == shard.name and _are(list(cached), shard.samples):
            tar = file.read()
            if tar is not None:
                yield shard, tar, provenance["shards"][name]


def _of_pixels(identity: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name not in ("prompts", "max_bad_fraction")}


def _are(rows: Sequence[dict[str, Any]], samples: Sequence[dict[str, Any]]) -> bool:
    """Whether these rows of an index are of these samples, with the same prompts and seeds."""
    return len(rows) == len(samples) and all(row | sample == row for row, sample in zip(rows, samples, strict=True))
