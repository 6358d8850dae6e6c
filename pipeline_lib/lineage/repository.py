"""All that an audit looks at, read once."""

from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline_lib.artifacts.dvc_cache import cache_folder
from pipeline_lib.errors import InputError
from pipeline_lib.lineage.graph import Graph
from pipeline_lib.lineage.hashing import Hasher
from pipeline_lib.lineage.history import History
from pipeline_lib.lineage.pipeline import finished_runs
from pipeline_lib.lineage.records import Record, read_record
from pipeline_lib.provenance.dvc_file import NO_REPOSITORY, PARAMS, declared_stages
from pipeline_lib.provenance.record import ROOT
from pipeline_lib.yaml_file import read_yaml

CHECKPOINTS, DATASETS, CALIBRATIONS = "data/quantized", "data/synthetic", "data/calibration"
PROVENANCE = f"{ROOT.as_posix()}/"


class Repository:
    """The working directory: what dvc.yaml and params.yaml declare, what dvc.lock records, what lies on the disk."""

    def __init__(self, *, allow_missing: bool = False) -> None:
        """Read what is declared and recorded. `allow_missing`: data that is not here is no failure; records are."""
        self.allow_missing = allow_missing
        self.declared = declared_stages()
        self.runs, self.malformed = finished_runs()  # the second: what is wrong with entries of dvc.lock
        self.records: dict[str, Record] = {}
        self.without_record: dict[str, str] = {}  # why, by stage
        for stage in self.runs:
            try:
                self.records[stage] = read_record(Path(self.record_path(stage)))
            except InputError as error:
                self.without_record[stage] = str(error)
        self.graph = Graph(self.runs, self.records)
        self.params: dict[str, Any] = read_yaml(PARAMS, NO_REPOSITORY)
        self.hasher, self.history = Hasher(), History()

    @cached_property
    def cache(self) -> Path:
        """Folder of DVC's cache."""
        return cache_folder()

    def stage_of(self, artifact: str) -> str:
        """The stage that wrote an artifact; a checkpoint may go by its folder's name, and a stage by its own.

        Raises:
            InputError: no finished stage has written it.
        """
        path = Path(artifact).as_posix()
        for candidate in (path, f"{CHECKPOINTS}/{path}"):
            stage = candidate if candidate in self.runs else self.graph.producer(candidate)
            if stage is not None:
                return stage
        known = ", ".join(out for run in self.runs.values() for out in run.outs if out.startswith(CHECKPOINTS))
        raise InputError(f"{artifact}: no finished stage of dvc.lock wrote this; checkpoints are {known or 'none'}")

    def checkpoints(self) -> dict[str, str]:
        """Stage by path of each checkpoint."""
        return self._written_below(CHECKPOINTS)

    def datasets(self) -> dict[str, str]:
        """Stage by path of each dataset that is here."""
        return {path: stage for path, stage in self._written_below(DATASETS).items() if Path(path).exists()}

    def _written_below(self, folder: str) -> dict[str, str]:
        return {out: name for name, run in self.runs.items() for out in run.outs if out.startswith(folder + "/")}

    def record_path(self, stage: str) -> str:
        """Where the record of a run is; the stage's name if dvc.lock has no such out."""
        return next((out for out in self.runs[stage].outs if out.startswith(PROVENANCE)), stage)

    def products(self, stage: str) -> dict[str, str]:
        """Digest by path of what a run wrote, besides its record."""
        return {out: md5 for out, md5 in self.runs[stage].outs.items() if not out.startswith(PROVENANCE)}
