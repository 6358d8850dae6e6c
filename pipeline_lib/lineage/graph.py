"""What an artifact was made from, down to the sources of each kind.

Edges are what dvc.lock says that a stage read, and what the stage itself recorded: who takes a dependency out of one of
them does not take it out of the graph.
"""

from bisect import bisect_left
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import takewhile
from pathlib import PurePosixPath

from pipeline_lib.lineage.pipeline import Run
from pipeline_lib.lineage.records import REAL_IMAGES, Record

CODE, UNKNOWN = "code", "unknown"


def is_code(path: str) -> bool:
    """Whether the path lies where the project's code is."""
    return path.startswith(("pipeline_lib/", "stages/"))


class Graph:
    """The runs of dvc.lock, connected by what they read and write."""

    def __init__(self, runs: Mapping[str, Run], records: Mapping[str, Record]) -> None:
        """Connect runs by what they and their records say; both by the stage's name, a record may be absent."""
        self._records = records
        self._producers = {out: name for name, run in runs.items() for out in run.outs}
        self._outs = sorted(self._producers)
        self.reads = {name: {**self._recorded(name), **run.deps} for name, run in runs.items()}
        self._parents = {
            name: list(dict.fromkeys(parent for path in paths for parent in self.producers_below(path)))
            for name, paths in self.reads.items()
        }

    def _recorded(self, stage: str) -> dict[str, str]:
        record = self._records.get(stage)
        return {path: read.digest for path, read in record.inputs.items()} if record else {}

    def producer(self, path: str) -> str | None:
        """The stage that writes the path, or a folder that it lies in."""
        folders = [path, *map(str, PurePosixPath(path).parents)]
        return next((self._producers[folder] for folder in folders if folder in self._producers), None)

    def outs_below(self, folder: str) -> list[str]:
        """The outs that lie in a folder."""
        first = bisect_left(self._outs, f"{folder}/")
        return list(takewhile(lambda out: out.startswith(f"{folder}/"), self._outs[first:]))

    def producers_below(self, path: str) -> list[str]:
        """The stages that write the path or something below it: a stage may read a folder of many outs."""
        whole = self.producer(path)
        return [self._producers[out] for out in self.outs_below(path)] if whole is None else [whole]

    def kind(self, stage: str, path: str) -> str:
        """What a stage took a path that it read for: CODE, a kind that it recorded, or UNKNOWN."""
        record = self._records.get(stage)
        if record and path in record.inputs:
            return record.inputs[path].kind
        return CODE if is_code(path) else UNKNOWN

    def sources(self, stage: str) -> dict[str, str]:
        """Digest by path of what a stage read that is no code and that no stage wrote."""
        return {
            path: digest
            for path, digest in self.reads[stage].items()
            if not self.producers_below(path) and self.kind(stage, path) != CODE
        }

    def ancestors(self, stage: str) -> list[str]:
        """The stage and all that it depends on, sources' readers first."""
        ordered, seen = [], {stage}
        stack = [(stage, iter(self._parents[stage]))]
        while stack:
            name, rest = stack[-1]
            parent = next((parent for parent in rest if parent not in seen), None)
            if parent is None:
                ordered.append(name)
                stack.pop()
            else:
                seen.add(parent)
                stack.append((parent, iter(self._parents[parent])))
        return ordered

    def descendants(self, stage: str) -> list[str]:
        """All stages that depend on it."""
        return [name for name in self.reads if name != stage and stage in self.ancestors(name)]

    def cycle(self) -> list[str]:
        """Stages that depend on each other in a circle, the first one twice; empty if there are none."""
        try:
            TopologicalSorter(self._parents).prepare()
        except CycleError as error:
            return list(error.args[1])
        return []

    def way_of_real_images(self, stage: str) -> list[tuple[str, str]]:
        """The shortest way by which real images reach what the stage writes: paths and their kinds; empty if none."""
        ways: list[tuple[str, list[tuple[str, str]]]] = [(stage, [])]
        seen = {stage}
        for name, way in ways:  # grows while it is walked
            for path in self.reads[name]:
                longer = [*way, (path, self.kind(name, path))]
                if longer[-1][1] in REAL_IMAGES:
                    return longer
                new = [parent for parent in self.producers_below(path) if parent not in seen]
                seen.update(new)
                ways.extend((parent, longer) for parent in new)
        return []
