"""`python -m pipeline_lib`: what DVC has no verb for."""

import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline_lib.artifacts.files import atomic
from pipeline_lib.errors import InputError, exit_code
from pipeline_lib.params.base import PARAMS_FILE, read, validate
from pipeline_lib.params.everything import read_everything
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.params.task import Task
from pipeline_lib.prompts.vocabulary import read_vocabulary

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from pipeline_lib.lineage.checks import Check
    from pipeline_lib.lineage.repository import Repository

PRESETS = Path(__file__).parent / "presets"
PACKAGES = ("torch", "torchvision", "diffusers", "transformers", "timm", "dvc", "webdataset", "pillow", "pandas")

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def preset(
    name: Annotated[str, typer.Argument(help=f"{', '.join(sorted(p.stem for p in PRESETS.glob('*.yaml')))}.")],
) -> None:
    """Write the params.yaml of a preset, never over uncommitted edits."""
    raise typer.Exit(exit_code(lambda: _write_preset(name)))


@app.command()
def doctor() -> None:
    """Check params.yaml; print versions, processor, GPU and the operator backend."""
    raise typer.Exit(exit_code(_examine))


Json = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command()
def audit(
    artifact: Annotated[str | None, typer.Argument(help="A path or stage; none: all of the pipeline.")] = None,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Absent data is no failure.")] = False,
    diff: Annotated[str | None, typer.Option(metavar="OTHER", help="Where this other artifact's way parts.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="What would rerun now, and what that cost last time.")] = False,
    deep: Annotated[
        int, typer.Option(metavar="K", help="Render K samples of each dataset again and compare their pixels.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Prove where artifacts came from and whether a real image was used. Exit code 1 if a check fails."""
    raise typer.Exit(exit_code(lambda: _audit(artifact, allow_missing, diff, plan, deep, as_json)))


@app.command()
def card(checkpoint: Annotated[str, typer.Argument(help="A folder below data/quantized.")]) -> None:
    """Print a checkpoint's model card, in Markdown."""
    raise typer.Exit(exit_code(lambda: _card(checkpoint)))


@app.command()
def croissant(dataset: Annotated[str, typer.Argument(help="A folder below data/synthetic.")]) -> None:
    """Print a dataset's Croissant description, as JSON-LD."""
    raise typer.Exit(exit_code(lambda: _croissant(dataset)))


@app.command()
def trace(
    key: Annotated[str | None, typer.Argument(help="A sample, such as mixup-000017.")] = None,
    class_name: Annotated[str | None, typer.Option("--class", help="List the samples of a class instead.")] = None,
) -> None:
    """All that is known of a rendered sample, as JSON: prompt, seed, place, batch, and the checkpoints that used it."""
    raise typer.Exit(exit_code(lambda: _trace(key, class_name)))


@app.command()
def clean(yes: Annotated[bool, typer.Option("--yes", help="Remove them.")] = False) -> None:
    """List work directories and cached objects that no run needs any more."""
    raise typer.Exit(exit_code(lambda: _clean(yes)))


bench = typer.Typer(no_args_is_help=True, help="Measure speed, as ratios within one run, and the accuracy of methods.")
app.add_typer(bench, name="bench")
DeviceName = Annotated[str, typer.Option("--device", help="cpu or cuda.")]


@bench.command("fakequant")
def bench_fakequant(
    device: DeviceName = "cpu",
    out: Annotated[Path, typer.Option(help="CSV file to write.")] = Path("bench-fakequant.csv"),
) -> None:
    """Our operators against what else computes the same, and a whole step of a ResNet block; a copy gives the scale."""
    raise typer.Exit(exit_code(lambda: _bench_fakequant(device, out)))


@bench.command("reconstruct")
def bench_reconstruct(
    model: Annotated[str, typer.Option(help="A timm name.")] = "resnet18",
    image_size: Annotated[int, typer.Option(help="Pixels.")] = 224,
    device: DeviceName = "cpu",
    out: Annotated[Path, typer.Option(help="CSV file to write.")] = Path("bench-reconstruct.csv"),
) -> None:
    """Seconds of a reconstruction step of every unit, next to the same step in plain PyTorch."""
    raise typer.Exit(exit_code(lambda: _bench_reconstruct(model, image_size, device, out)))


@bench.command("synthesize")
def bench_synthesize(
    shards: Annotated[int, typer.Option(help="Shards to render with each, beside a batch to warm up.")] = 1,
    random_sd15: Annotated[
        bool, typer.Option("--random-sd15", help="Stable Diffusion v1.5's architecture with random weights.")
    ] = False,
    device: DeviceName = "cpu",
    out: Annotated[Path, typer.Option(help="CSV file to write.")] = Path("bench-synthesize.csv"),
) -> None:
    """Our synthesis against the plain loop over diffusers' pipeline, as params.yaml describes it."""
    raise typer.Exit(exit_code(lambda: _bench_synthesize(shards, random_sd15, device, out)))


@bench.command("methods")
def bench_methods(
    models: Annotated[list[str], typer.Argument(help="Folders below `task.classifiers`.")],
    precision: Annotated[list[str], typer.Option(help="Keys of `precisions` in params.yaml.")],
    method: Annotated[list[str], typer.Option(help="Keys of `methods` in params.yaml.")],
    iterations: Annotated[int, typer.Option(help="A unit, for methods that reconstruct.")] = 300,
    seeds: Annotated[int, typer.Option(help="Runs of each.")] = 3,
    device: DeviceName = "cpu",
    out: Annotated[Path, typer.Option(help="CSV file to write; rows that it has are kept.")] = Path(
        "bench-methods.csv"
    ),
) -> None:
    """Accuracy of methods of reconstruction, calibrated on `task.real`, over seeds."""
    raise typer.Exit(exit_code(lambda: _bench_methods(models, precision, method, iterations, seeds, device, out)))


def _write_preset(name: str) -> None:
    presets = {path.stem: path.read_text(encoding="utf-8") for path in PRESETS.glob("*.yaml")}
    if name not in presets:
        raise InputError(f"no preset {name!r}; there are {', '.join(sorted(presets))}")
    if PARAMS_FILE.exists() and PARAMS_FILE.read_text(encoding="utf-8") not in presets.values():
        status = subprocess.run(["git", "status", "--porcelain", "--", PARAMS_FILE], capture_output=True, check=False)
        if status.returncode or status.stdout:
            raise InputError(
                f"{PARAMS_FILE} has edits that are not committed; commit or remove it, then run this again"
            )
    with atomic(PARAMS_FILE) as path:
        path.write_text(presets[name], encoding="utf-8")
    print(f"{PARAMS_FILE} is now the preset {name}")


def _examine() -> None:
    params = read_everything()
    cells = len(params.axes.sources) * len(params.axes.models) * len(params.axes.precisions)
    print(f"params.yaml: valid, {cells} cells")
    print(f"python {platform.python_version()} on {platform.platform()}")
    print(", ".join(f"{package} {version(package)}" for package in PACKAGES))

    import torch

    from pipeline_lib.fakequant import backend

    print(f"cpu: {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f"gpu: {', '.join(names) or 'none; synthesis and reconstruction run on the CPU'}")
    for device in ("cpu", "cuda"):
        print(f"fake-quant operators on {device}: {backend(device)}")


def _repository(*, allow_missing: bool = False) -> "Repository":
    from pipeline_lib.lineage.repository import Repository

    task = read(Task, "task")
    kinds = {
        task.classes: "text",
        task.generator: "generator weights",
        task.classifiers: "classifier weights",
        task.labelled: "labelled images",
        task.real: "real calibration images",
    }
    return Repository(kinds, allow_missing=allow_missing)


def _audit(artifact: str | None, allow_missing: bool, other: str | None, plan: bool, deep: int, as_json: bool) -> None:
    from pipeline_lib.lineage import audit as lineage
    from pipeline_lib.lineage import plan as planning

    repository = _repository(allow_missing=allow_missing)
    if other is not None:
        if artifact is None:
            raise InputError("--diff OTHER compares with an artifact; name that too")
        for line in planning.difference(repository, artifact, other):
            print(line)
        return
    if plan:
        reruns = planning.plan(repository)
        for rerun in reruns:
            took = "" if rerun.seconds is None else f"  ({rerun.seconds:.0f} s the last time)"
            print(f"{rerun.stage}: {rerun.why}{took}")
        print(f"{len(reruns)} stages, {sum(rerun.seconds or 0 for rerun in reruns):.0f} s the last time")
        return
    result = lineage.audit(repository, artifact, [_rerendered(repository, deep)] if deep else [])
    if as_json:
        print(json.dumps(result.to_json(), indent=2))
    else:
        for line in lineage.describe(repository, result, artifact):
            print(line)
    if result.failed:
        raise typer.Exit(1)


def _rerendered(repository: "Repository", count: int) -> "Check":
    """The check of `--deep`."""
    from pipeline_lib.lineage.checks import Check, Problem
    from pipeline_lib.models.device import resolve_device
    from pipeline_lib.synthesis.verify import rerender

    generator, device = Path(read(Task, "task").generator), resolve_device(read(Runtime, "runtime"))
    problems, rendered = [], 0
    for dataset, stage in repository.datasets().items():
        params = validate(Synthesize, repository.runs[stage].params["synthesize"], "synthesize", Path("dvc.lock"))
        for key, same in rerender(Path(dataset), generator, params, device, count):
            rendered += 1
            if not same:
                evidence = f"sample {key}, rendered again on {device}, has other pixels than the dataset"
                problems.append(Problem("FAIL", dataset, evidence, (stage,)))
    return Check("rendered again", f"{rendered} samples have the pixels of their datasets", problems)


def _card(checkpoint: str) -> None:
    from pipeline_lib.lineage.audit import audit
    from pipeline_lib.lineage.card import card

    repository = _repository(allow_missing=True)
    for line in card(repository, Path(checkpoint).as_posix(), audit(repository, checkpoint)):
        print(line)


def _croissant(dataset: str) -> None:
    from pipeline_lib.lineage.croissant import croissant

    print(json.dumps(croissant(_repository(), Path(dataset).as_posix()), indent=2, ensure_ascii=False))


def _trace(key: str | None, class_name: str | None) -> None:
    from pipeline_lib.lineage import trace as tracing

    if (key is None) == (class_name is None):
        raise InputError("trace: expected a KEY, or --class NAME")
    repository = _repository()
    if key is not None:
        print(json.dumps(tracing.trace(repository, key), indent=2, ensure_ascii=False))
        return
    names = [entry.name for entry in read_vocabulary(Path(read(Task, "task").classes))]
    if class_name not in names:
        raise InputError(f"--class: no {class_name!r}; there are {', '.join(names)}")
    rows = list(tracing.of_class(repository, names.index(class_name)))
    for row in rows:
        print(json.dumps(row, ensure_ascii=False))
    print(f"{len(rows)} samples", file=sys.stderr)


def _clean(yes: bool) -> None:
    from pipeline_lib.lineage.orphans import orphans

    found = orphans(_repository())
    for orphan in found:
        print(f"{orphan.bytes / 2**20:10.2f} MiB  {orphan.path}  ({orphan.what})")
        if yes:
            orphan.remove()
    total = sum(orphan.bytes for orphan in found) / 2**20
    print(f"{len(found)} orphans, {total:.2f} MiB, {'removed' if yes else 'kept; --yes removes them'}")


def _bench_fakequant(device_name: str, out: Path) -> None:
    from pipeline_lib.bench.fakequant import compare_operators
    from pipeline_lib.bench.reconstruct import compare_units

    device = _bench_device(device_name)
    _show(compare_units(device, PRESETS / "default.yaml", "resnet18", 64, ["layer1.0"]))
    _write(compare_operators(device), out)


def _bench_reconstruct(model: str, image_size: int, device_name: str, out: Path) -> None:
    from pipeline_lib.bench.reconstruct import compare_units

    device = _bench_device(device_name)
    table = compare_units(device, PRESETS / "imagenet.yaml", model, image_size)
    _write(table, out)
    print(f"all units, 20,000 iterations each: {table['hours_of_20000'].sum():.1f} hours")


def _bench_synthesize(shards: int, random_sd15: bool, device_name: str, out: Path) -> None:
    import torch

    from pipeline_lib.bench.synthesize import compare_loops, write_random_sd15

    params, device = read_everything(), _bench_device(device_name)
    with TemporaryDirectory() as folder:
        generator = Path(params.task.generator)
        if random_sd15:
            write_random_sd15(generator, Path(folder) / "sd15", getattr(torch, params.synthesize.dtype))
            generator = Path(folder) / "sd15"
        _write(compare_loops(generator, params.synthesize, shards, device, Path(folder)), out)


def _bench_methods(
    models: list[str],
    precisions: list[str],
    methods: list[str],
    iterations: int,
    seeds: int,
    device_name: str,
    out: Path,
) -> None:
    from pipeline_lib.bench.methods import compare_methods, summary
    from pipeline_lib.models.device import resolve_device

    params, device = read_everything(), _bench_device(device_name)
    resolve_device(params.runtime.model_copy(update={"device": device_name}))  # the threads that stages have
    _show(summary(compare_methods(params, models, precisions, methods, iterations, seeds, device, out)))
    print(f"runs in {out}")


def _bench_device(name: str) -> "torch.device":
    import torch

    from pipeline_lib.fakequant import backend

    if name not in ("cpu", "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        raise InputError(f"--device: expected cpu, or cuda where torch sees one, found {name}")
    device = torch.device(name)
    hardware = torch.cuda.get_device_name() if name == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"{hardware}, torch {version('torch')}, operators {backend(device)}")
    return device


def _show(table: "pd.DataFrame") -> None:
    print(table.to_string(index=False, float_format="%.2f"))


def _write(table: "pd.DataFrame", out: Path) -> None:
    _show(table)
    with atomic(out) as path:
        table.to_csv(path, index=False)
    print(f"written to {out}")


if __name__ == "__main__":
    app()
