"""A checkpoint's model card in Markdown: what it is, what it was made from, how good it is."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline_lib.errors import InputError
from pipeline_lib.lineage.audit import Audit
from pipeline_lib.lineage.graph import CODE
from pipeline_lib.lineage.repository import CHECKPOINTS, Repository


def card(repository: Repository, checkpoint: str, audited: Audit) -> Iterator[str]:
    """The lines of the card. `audited` is the audit of this checkpoint.

    Raises:
        InputError: no finished stage wrote a checkpoint here, or it is absent.
    """
    folder = Path(checkpoint)
    if folder.parent != Path(CHECKPOINTS) or not (folder / "quantization.json").exists():
        raise InputError(f"{checkpoint}: expected a checkpoint below {CHECKPOINTS}; `dvc pull` brings it")
    stage = repository.stage_of(checkpoint)
    description = json.loads((folder / "quantization.json").read_text(encoding="utf-8"))
    weights = Counter(layer["bits"] for layer in description["weights"].values())
    activations = Counter(tensor["bits"] for tensor in description["activations"].values())
    yield f"# {folder.name}"
    yield f"\n`{description['model']['timm']}` of timm, quantized by block reconstruction."
    yield "\n| | bits: tensors |\n|---|---|"
    yield f"| weights | {_counts(weights)} |\n| activations | {_counts(activations)} |"
    if description["simulation_only"]:
        yield "\nThe logarithmic softmax has no form in an integer runtime: this checkpoint is for simulation."
    yield "\n## Made from"
    for ancestor in audited.stages:
        for path, md5 in repository.runs[ancestor].deps.items():
            kind = repository.graph.kind(path)
            if not repository.graph.producers_below(path) and kind != CODE:
                yield f"- {kind}: `{path}` ({md5[:10]}), read by `{ancestor}`"
    recorded = repository.provenance(stage) or {}
    yield f"\nCommit {recorded.get('git_commit')}, on {recorded.get('device')} ({recorded.get('processor')})."
    (verdict,) = (verdict for verdict in audited.verdicts if verdict.checkpoint == checkpoint)
    yield f"\n**Real images upstream: {verdict.text}.** Checks: {_counts(Counter(c.status for c in audited.checks))}."
    metrics = Path("data/evaluation") / folder.name / "metrics.json"
    if metrics.exists():
        yield from _accuracy(json.loads(metrics.read_text(encoding="utf-8")))


def _accuracy(metrics: dict[str, Any]) -> Iterator[str]:
    yield f"\n## Accuracy on {metrics['images']} labelled images\n\n| | top-1, % | interval |\n|---|---|---|"
    for method in ("reconstructed", "nearest"):
        found = metrics[method]
        yield f"| {method} | {found['top1']:.2f} | {found['top1_low']:.2f} to {found['top1_high']:.2f} |"


def _counts(counter: Counter[Any]) -> str:
    return ", ".join(f"{key}: {number}" for key, number in sorted(counter.items()))
