"""All checks of a finished pipeline, in the order in which the audit prints them."""

from collections.abc import Callable, Collection, Iterator

from pipeline_lib.lineage import check_contents, check_declared, check_files, check_records
from pipeline_lib.lineage.findings import Check, Problem
from pipeline_lib.lineage.repository import Repository

CHECKS: dict[str, Callable[[Repository, Collection[str]], Iterator[Problem]]] = {
    "dvc.lock": check_declared.well_formed,
    "names": check_declared.names,
    "declared": check_declared.declared,
    "parameters": check_declared.parameters,
    "finished": check_declared.unfinished,
    "frozen": check_declared.frozen,
    "committed": check_declared.committed,
    "imports": check_declared.imports,
    "outs": check_files.outs_on_disk,
    "cache": check_files.cache_on_disk,
    "sources and code": check_files.sources_and_code,
    "links": check_files.links,
    "records": check_records.records,
    "inputs": check_records.inputs,
    "kinds": check_records.kinds,
    "values": check_records.values,
    "commits": check_records.commits,
    "modules": check_records.modules,
    "environment": check_records.environment,
    "devices": check_records.devices,
    "datasets": check_contents.datasets,
    "calibration sets": check_contents.calibration_sets,
    "checkpoints": check_contents.checkpoints,
}


def run_checks(repository: Repository, stages: Collection[str]) -> list[Check]:
    """All checks, of these stages. The docstring of each says what it looks at, in words that the audit prints."""
    checks = []
    for name, check in CHECKS.items():
        evidence = " ".join(str(check.__doc__).split()).rstrip(".")
        checks.append(Check(name, evidence, list(check(repository, stages))))
    return checks
