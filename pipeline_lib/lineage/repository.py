"""All that an audit looks at, read once."""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline_lib.artifacts.dvc_cache import cache_folder
from pipeline_lib.errors import InputError
from pipeline_lib.lineage.graph import Graph
from pipeline_lib.lineage.hashing import Hasher
from pipeline_lib.lineage.pipeline import NO_REPOSITORY, PARAMS, declared_stages, finished_runs
from pipeline_lib.provenance.record import ROOT as PROVENANCE
from pipeline_lib.yaml_file import read_yaml

CHECKPOINTS, DATASETS, CALIBRATIONS = "data/quantized", "data/synthetic", "data/calibration"


class Repository:
    """The working directory: what dvc.yaml and params.yaml declare, what dvc.lock records, what lies on the disk."""

    def __init__(self, source_kinds: Mapping[str, str], *, allow_missing: bool = False) -> None:
        """Read what is declared and recorded. `source_kinds`: see `Graph`; `allow_missing`: of data, no failure."""
        self.allow_missing = allow_missing
        self.declared, self.runs = declared_stages(), finished_runs()
        self.graph = Graph(self.runs, source_kinds)
        self.params: dict[str, Any] = read_yaml(PARAMS, NO_REPOSITORY)
        self.hasher = Hasher()

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

    def provenance(self, stage: str) -> dict[str, Any] | None:
        """What a run recorded of itself; none where that is absent or no JSON."""
        for out in self.runs[stage].outs:
            if out.startswith(f"{PROVENANCE.as_posix()}/"):
                try:
                    content = json.loads(Path(out).read_text(encoding="utf-8"))
                except (FileNotFoundError, json.JSONDecodeError):
                    return None
                return content if isinstance(content, dict) else None
        return None

    def products(self, stage: str) -> dict[str, str]:
        """Digest by path of what a run wrote, besides its provenance."""
        return {out: md5 for out, md5 in self.runs[stage].outs.items() if not out.startswith(PROVENANCE.as_posix())}
