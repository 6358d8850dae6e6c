"""What an artifact was made from, by the digests of dvc.lock, down to the sources of each kind."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline_lib.lineage.pipeline import Run

CODE = "code"
REAL_IMAGES = ("real calibration images", "labelled images")  # kinds of sources that a data-free checkpoint lacks


@dataclass(frozen=True)
class Link:
    """A path as one stage reads it."""

    path: str
    md5: str
    reader: str  # name of the stage


class Graph:
    """The runs of dvc.lock, connected by what they read and write."""

    def __init__(self, runs: Mapping[str, Run], source_kinds: Mapping[str, str]) -> None:
        """Connect runs, by name; `source_kinds` says what a file or folder is: `text`, or one of REAL_IMAGES."""
        self.runs, self.source_kinds = runs, source_kinds
        self._producers = {out: name for name, run in runs.items() for out in run.outs}

    def producer(self, path: str) -> str | None:
        """The stage that writes the path, or a folder that it lies in."""
        for out, name in self._producers.items():
            if path == out or path.startswith(out + "/"):
                return name
        return None

    def producers_below(self, path: str) -> list[str]:
        """The stages that write the path or something below it: a stage may read a folder of many outs."""
        inside = [name for out, name in self._producers.items() if out.startswith(path + "/")]
        whole = self.producer(path)
        return inside if whole is None else [whole]

    def source_kind(self, path: str) -> str:
        """What kind of source a path is, CODE or by `source_kinds`; `unknown` if these do not say."""
        if path.startswith(("pipeline_lib/", "stages/")):
            return CODE
        for source, kind in self.source_kinds.items():
            if path == source or path.startswith(source + "/"):
                return kind
        return "unknown"

    def upstream(self, stage: str) -> Iterator[list[Link]]:
        """Every path of links from the stage to a source; the source is the last link."""
        for path, md5 in self.runs[stage].deps.items():
            link = Link(path, md5, stage)
            producers = self.producers_below(path)
            if not producers:
                yield [link]
            for producer in producers:
                for further in self.upstream(producer):
                    yield [link, *further]

    def ancestors(self, stage: str) -> list[str]:
        """The stage and all that it depends on, sources' readers first."""
        ordered: list[str] = []

        def visit(name: str) -> None:
            for path in self.runs[name].deps:
                for producer in self.producers_below(path):
                    if producer not in ordered:
                        visit(producer)
            if name not in ordered:
                ordered.append(name)

        visit(stage)
        return ordered

    def descendants(self, stage: str) -> list[str]:
        """All stages that depend on it."""
        return [name for name in self.runs if name != stage and stage in self.ancestors(name)]

    def way_of_real_images(self, stage: str) -> list[Link] | None:
        """A way by which real images reach what the stage writes; none if there is none."""
        for way in self.upstream(stage):
            if self.source_kind(way[-1].path) in REAL_IMAGES:
                return way
        return None
