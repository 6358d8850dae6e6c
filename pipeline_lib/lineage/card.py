"""A checkpoint's model card in Markdown: what it is, what it was made from, how good it is."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline_lib.artifacts.records import read_json
from pipeline_lib.errors import InputError, reading
from pipeline_lib.lineage.audit import Audit
from pipeline_lib.lineage.repository import CHECKPOINTS, Repository


def card_lines(repository: Repository, checkpoint: str, audit: Audit) -> Iterator[str]:
    """The card of a checkpoint, a line at a time, with the result of its own audit.

    Raises:
        InputError: no finished stage wrote a checkpoint here, or it is absent.
    """
    folder = Path(checkpoint)
    if folder.parent != Path(CHECKPOINTS) or not (folder / "quantization.json").exists():
        raise InputError(f"{checkpoint}: expected a checkpoint below {CHECKPOINTS}; `dvc pull` brings it")
    stage = repository.stage_of(checkpoint)
    file = folder / "quantization.json"
    with reading(file, "the description of a checkpoint", "`dvc checkout` restores it"):
        description = read_json(file)
        weights = Counter(layer["bits"] for layer in description["weights"].values())
        activations = Counter(tensor["bits"] for tensor in description["activations"].values())
        name, simulation_only = description["model"]["timm"], description["simulation_only"]
    yield f"# {folder.name}"
    yield f"\n`{name}` of timm, quantized by block reconstruction."
    yield "\n| | bits: tensors |\n|---|---|"
    yield f"| weights | {_counts(weights)} |\n| activations | {_counts(activations)} |"
    if simulation_only:
        yield "\nThe logarithmic softmax has no form in an integer runtime: this checkpoint is for simulation."
    yield from _use_lines(checkpoint)
    yield "\n## Made from"
    for ancestor in audit.stages:
        for path, md5 in repository.graph.sources(ancestor).items():
            kind = repository.graph.kind(ancestor, path)
            yield f"- {kind}: `{path}` ({md5[:10]}), read by `{ancestor}`"
    record = repository.records.get(stage)
    if record:
        yield f"\nCommit {record.git_commit}, on {record.device} ({record.processor})."
    (verdict,) = (verdict for verdict in audit.verdicts if verdict.checkpoint == checkpoint)
    statuses = Counter(check.status for check in audit.checks)
    yield f"\n**Real images upstream: {verdict.text}.** Checks: {_counts(statuses)}."
    metrics = Path("data/evaluation") / folder.name / "metrics.json"
    if metrics.exists():
        with reading(metrics, "the metrics of an evaluation", "`dvc checkout` restores it"):
            lines = list(_accuracy_lines(read_json(metrics)))
        yield from lines


def _use_lines(checkpoint: str) -> Iterator[str]:
    yield "\n## Use\n\nAfter `pip install .` in a clone of the project, with a copy of this folder:\n\n```python"
    yield "from PIL import Image\nfrom pipeline_lib.loading import load\n"
    yield f'network, transform, names = load("{checkpoint}")'
    yield 'print(names[network(transform(Image.open("picture.jpg"))[None]).argmax()])\n```'


def _accuracy_lines(metrics: dict[str, Any]) -> Iterator[str]:
    yield f"\n## Accuracy on {metrics['images']} labelled images\n\n| | top-1, % | interval |\n|---|---|---|"
    for method in ("reconstructed", "nearest"):
        result = metrics[method]
        yield f"| {method} | {result['top1']:.2f} | {result['top1_low']:.2f} to {result['top1_high']:.2f} |"


def _counts(counter: Counter[Any]) -> str:
    """`OK: 14, WARN: 1`."""
    return ", ".join(f"{key}: {number}" for key, number in sorted(counter.items()))
