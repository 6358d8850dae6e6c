"""How much of a prompt the generator's text encoders read: what is longer is cut by them without a word."""

import inspect
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline_lib.artifacts.hub import components, locate, pipeline_class
from pipeline_lib.errors import InputError, one_line, refusing, shown
from pipeline_lib.params.prompts import PromptRecipe
from pipeline_lib.progress import notice

MOST_SHOWN = 300  # characters of a prompt in a message
AT_ONCE = 4096  # rows whose texts are counted together

UNLIMITED = int(1e20)  # transformers' `model_max_length` is larger where a tokenizer's files say nothing


@dataclass(frozen=True)
class Tokenizer:
    """One of a generator's tokenizers, and how many tokens of a text its encoder reads, marks of its ends included."""

    limit: int
    tokenize: Any  # transformers'

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        return [len(tokens) for tokens in self.tokenize(list(texts), truncation=False, verbose=False).input_ids]


def within_limits(
    rows: Iterable[dict[str, Any]], name: str, recipe: PromptRecipe, tokenizers: Sequence[Tokenizer]
) -> Iterator[dict[str, Any]]:
    """The rows of `write_prompts`; with `too_long: cut`, one that is not read to its end says so.

    Its `cut` has the `tokens` of the longest of its texts, and how many are `read`. The texts are the prompt, or its
    parts, and the negative prompt.

    Raises:
        InputError: some row is cut and the recipe has `too_long: error`. It comes after the last row.
    """
    number, cut, first = 0, 0, ""
    rows = iter(rows)
    while some := list(islice(rows, AT_ONCE)):
        lengths = _lengths({text for row in some for text in _texts(row)}, tokenizers)
        for row in some:
            number += 1
            found = [(tokens - limit, tokens, limit, text) for text in _texts(row) for tokens, limit in lengths[text]]
            excess, tokens, limit, text = max(found, default=(0, 0, 0, ""))
            if excess <= 0:
                yield row
                continue
            cut += 1
            if not first:
                first = f"{row['key']}, of {tokens} tokens, of which {limit} are read: {text[:MOST_SHOWN]!r}"
            yield {**row, "cut": {"tokens": tokens, "read": limit}}
    if cut:
        said = (
            f"{cut} of {number} prompts of `prompts.{name}` are longer than the generator reads; the first is {first}"
        )
        if recipe.too_long == "error":
            raise InputError(
                f"params.yaml: {said}; shorten what they are made of (definitions, templates, captions, classes a "
                f"prompt), or set `prompts.{name}.too_long` to cut, which records it"
            )
        notice(said)


def _texts(row: dict[str, Any]) -> list[str]:
    """What is encoded for a row."""
    return [*row.get("parts", [row["prompt"]]), row["negative_prompt"]]


def _lengths(texts: Collection[str], tokenizers: Sequence[Tokenizer]) -> dict[str, list[tuple[int, int]]]:
    """Tokens and limit of each text, in each tokenizer."""
    lengths: dict[str, list[tuple[int, int]]] = {text: [] for text in texts}
    for tokenizer in tokenizers:
        for text, tokens in zip(lengths, tokenizer.count(list(lengths)), strict=True):
            lengths[text].append((tokens, tokenizer.limit))
    return lengths


def load_tokenizers(generator: Path) -> list[Tokenizer]:
    """All tokenizers of a generator whose encoders have a limit.

    Raises:
        InputError: there is no generator, or a tokenizer cannot be loaded.
    """
    import transformers

    named = {name: kind for name, (_, kind) in components(generator).items() if name.startswith("tokenizer")}
    source, revision = locate(generator, needs=named)
    found = []
    for name, kind in named.items():
        what = f"{generator}: cannot load {name} ({kind}), which counts the tokens of prompts"
        with refusing(lambda error, what=what: f"{what}: {one_line(error)}"):  # type: ignore[misc]
            tokenizer = getattr(transformers, kind).from_pretrained(source, subfolder=name, revision=revision or "main")
        limit = tokenizer.model_max_length
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 1:
            raise InputError(
                f"{generator}: expected a number of tokens as `model_max_length` in {name}/tokenizer_config.json, "
                f"found {shown(limit)}; write that of the text encoder, 77 in CLIP"
            )
        if kind.startswith("CLIP"):
            if limit > UNLIMITED:
                raise InputError(
                    f"{generator}: expected `model_max_length` in {name}/tokenizer_config.json, which bounds the "
                    "tokens of a prompt; write that of the text encoder, 77 in CLIP"
                )
        else:  # of which the pipeline may read less
            limit = min(limit, _most_tokens(pipeline_class(generator)) or limit)
        if limit <= UNLIMITED:
            found.append(Tokenizer(int(limit), tokenizer))
    return found


def _most_tokens(pipeline: str) -> int | None:
    """The default of the argument by which a pipeline of diffusers bounds the tokens of a prompt, if it has one."""
    import diffusers

    known = getattr(diffusers, pipeline, None)
    bound = inspect.signature(known.__call__).parameters.get("max_sequence_length") if known else None
    return None if bound is None else bound.default
