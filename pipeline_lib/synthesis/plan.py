"""Which samples stand in which shard, and the seed of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline_lib.artifacts.fingerprints import seed_of


@dataclass(frozen=True)
class Shard:
    """One unit of work: consecutive samples of a recipe. Batches never cross it."""

    number: int
    samples: tuple[dict[str, Any], ...]

    @property
    def name(self) -> str:
        """File name in the dataset."""
        return f"{self.number:06d}.tar"


def plan_shards(prompts: Sequence[dict[str, Any]], shard_size: int, seed: int) -> list[Shard]:
    """Cut the prompts into shards; a sample's seed derives from its key, not from its place."""
    samples = [{**row, "seed": seed_of("synthesis", seed, row["key"])} for row in prompts]
    return [
        Shard(number, tuple(samples[start : start + shard_size]))
        for number, start in enumerate(range(0, len(samples), shard_size))
    ]
