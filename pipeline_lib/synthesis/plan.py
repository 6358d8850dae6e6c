"""Which samples stand in which shard, and the seed of each."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pipeline_lib.artifacts.fingerprints import seed_of


@dataclass(frozen=True)
class Shard:
    """One unit of work: consecutive samples of a recipe. Batches never cross it."""

    number: int
    samples: tuple[dict[str, Any], ...]

    @property
    def key(self) -> str:
        """File name in the dataset."""
        return shard_name(self.number)


def shard_name(number: int) -> str:
    """File name of a shard by its number."""
    return f"{number:06d}.tar"


def plan_shards(prompts: Iterable[dict[str, Any]], shard_size: int, seed: int) -> Iterator[Shard]:
    """Cut the prompts into shards, one at a time; a sample's seed derives from its key, not from its place."""
    rows, number = iter(prompts), 0
    while samples := tuple({**row, "seed": seed_of("synthesis", seed, row["key"])} for row in islice(rows, shard_size)):
        yield Shard(number, samples)
        number += 1
