"""Commands on where artifacts came from."""

import difflib
import json
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from pipeline_lib.artifacts.dvc_cache import cache_folder
from pipeline_lib.artifacts.files import atomic
from pipeline_lib.command import guarded
from pipeline_lib.errors import InputError, RunError
from pipeline_lib.lineage.audit import audit_lines, run_audit
from pipeline_lib.lineage.card import card_lines
from pipeline_lib.lineage.croissant import dataset_description
from pipeline_lib.lineage.dependencies import with_dependencies
from pipeline_lib.lineage.findings import Check, Problem
from pipeline_lib.lineage.orphans import find_orphans
from pipeline_lib.lineage.plan import difference_lines, planned_reruns
from pipeline_lib.lineage.repository import Repository
from pipeline_lib.lineage.trace import samples_of_class, trace_sample
from pipeline_lib.params.base import read, validate
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.params.task import Task
from pipeline_lib.prompts.vocabulary import read_vocabulary
from pipeline_lib.provenance.dvc_file import DVC_YAML

app = typer.Typer()


@app.command()
@guarded
def audit(
    artifact: Annotated[str | None, typer.Argument(help="A path or stage; none: all of the pipeline.")] = None,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Absent data is no failure.")] = False,
    diff: Annotated[str | None, typer.Option(metavar="OTHER", help="Where this other artifact's way parts.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="What would rerun now, and what that cost last time.")] = False,
    deep: Annotated[
        int, typer.Option(metavar="K", help="Render K samples of each dataset again and compare their pixels.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Check where artifacts came from and whether a real image was used. Exit code 1 if a check fails."""
    repository = Repository(allow_missing=allow_missing)
    if diff is not None:
        if artifact is None:
            raise InputError("--diff OTHER compares with an artifact; name that too")
        _print(difference_lines(repository, artifact, diff))
    elif plan:
        _print_plan(repository)
    else:
        result = run_audit(repository, artifact, [_rendered_again(repository, deep)] if deep else [])
        if as_json:
            print(json.dumps(result.to_json(), indent=2))
        else:
            _print(audit_lines(repository, result, artifact))
        if result.failed:
            raise typer.Exit(1)


@app.command()
@guarded
def trace(
    key: Annotated[str | None, typer.Argument(help="A sample, such as mixup-000017.")] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="List the samples of a class instead: its name or index.")
    ] = None,
) -> None:
    """All that is known of a rendered sample, as JSON: prompt, seed, place, batch, and the checkpoints that used it."""
    if (key is None) == (class_name is None):
        raise InputError("trace: expected a KEY, or --class NAME")
    repository = Repository()
    if key is not None:
        print(json.dumps(trace_sample(repository, key), indent=2, ensure_ascii=False))
        return
    names = [entry.name for entry in read_vocabulary(Path(read(Task, "task").classes))]
    numbers = [number for number, name in enumerate(names) if class_name in (name, str(number))]
    if not numbers:
        raise InputError(f"--class: no {class_name!r}; there are {', '.join(names)}, or an index below {len(names)}")
    if len(numbers) > 1:
        several = " and ".join(map(str, numbers))
        print(f"{class_name} is the name of {len(numbers)} classes, {several}; an index names one", file=sys.stderr)
    samples = list(samples_of_class(repository, numbers))
    _print(json.dumps(sample, ensure_ascii=False) for sample in samples)
    print(f"{len(samples)} samples", file=sys.stderr)


@app.command()
@guarded
def card(checkpoint: Annotated[str, typer.Argument(help="A folder below data/quantized.")]) -> None:
    """Print a checkpoint's model card, in Markdown."""
    repository = Repository(allow_missing=True)
    _print(card_lines(repository, Path(checkpoint).as_posix(), run_audit(repository, checkpoint)))


@app.command()
@guarded
def croissant(dataset: Annotated[str, typer.Argument(help="A folder below data/synthetic.")]) -> None:
    """Print a dataset's Croissant description, as JSON-LD."""
    print(json.dumps(dataset_description(Repository(), Path(dataset).as_posix()), indent=2, ensure_ascii=False))


@app.command()
@guarded
def dependencies(write: Annotated[bool, typer.Option("--write", help="Write it into dvc.yaml.")] = False) -> None:
    """The code that each stage of dvc.yaml depends on, by its imports. Exit code 1 if dvc.yaml has other code."""
    expected = with_dependencies(Path())
    found = DVC_YAML.read_text(encoding="utf-8")
    if expected == found:
        return
    if not write:
        files = "dvc.yaml", "dvc.yaml by imports"
        print(*difflib.unified_diff(found.splitlines(), expected.splitlines(), *files, lineterm=""), sep="\n")
        raise RunError(
            "dvc.yaml: expected the code that its stages import, found the difference above; "
            "`python -m pipeline_lib dependencies --write` writes it"
        )
    with atomic(DVC_YAML) as path:
        path.write_text(expected, encoding="utf-8")


@app.command()
@guarded
def clean(yes: Annotated[bool, typer.Option("--yes", help="Remove them.")] = False) -> None:
    """List work directories that are not at work, and cached objects that no commit in use names."""
    orphans = find_orphans(cache_folder())
    for orphan in orphans:
        print(f"{orphan.bytes / 2**20:10.2f} MiB  {orphan.path}  ({orphan.description})")
        if yes:
            orphan.remove()
    total = sum(orphan.bytes for orphan in orphans) / 2**20
    print(f"{len(orphans)} orphans, {total:.2f} MiB, {'removed' if yes else 'kept; --yes removes them'}")


def _print(lines: Iterable[str]) -> None:
    """Print lines; a letter that the terminal's encoding lacks is printed as an escape."""
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a stream of text
    for line in lines:
        print(line)


def _print_plan(repository: Repository) -> None:
    reruns = planned_reruns(repository)
    for rerun in reruns:
        took = "" if rerun.seconds is None else f"  ({rerun.seconds:.0f} s the last time)"
        print(f"{rerun.stage}: {rerun.reason}{took}")
    print(f"{len(reruns)} stages, {sum(rerun.seconds or 0 for rerun in reruns):.0f} s the last time")


def _rendered_again(repository: Repository, count: int) -> Check:
    """The check of `--deep`, on `count` samples of each dataset."""
    from pipeline_lib.lineage.rerender import render_again
    from pipeline_lib.models.device import resolve_device

    generator, device = Path(read(Task, "task").generator), resolve_device(read(Runtime, "runtime"))
    problems: list[Problem] = []
    rendered = 0
    for dataset, stage in repository.datasets().items():
        params = validate(Synthesize, repository.runs[stage].params["synthesize"], "synthesize", Path("dvc.lock"))
        samples = render_again(Path(dataset), generator, params, device, count)
        try:
            for key, has_same_pixels in samples:
                rendered += 1
                if not has_same_pixels:
                    evidence = f"sample {key}, rendered again on {device}, has other pixels than the dataset"
                    problems.append(Problem("FAIL", dataset, evidence, (stage,)))
        except (InputError, KeyError, OSError, TypeError, ValueError, tarfile.TarError) as error:
            problems.append(Problem("FAIL", dataset, f"cannot be rendered again: {error!r}", (stage,)))
    return Check("rendered again", f"{rendered} samples have the pixels of their datasets", problems)
