"""Prompts that a text encoder does not read to their end."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline_lib.artifacts.records import read_lines
from pipeline_lib.errors import InputError
from pipeline_lib.params.base import validate
from pipeline_lib.params.prompts import PromptRecipe, Recipe
from pipeline_lib.prompts.limits import load_tokenizers, within_limits
from tests.conftest import ROOT, edit_params

FASHION = ROOT / "data/fashion/generator"
Stage = Callable[..., int]


def recipe(**values: object) -> PromptRecipe:
    return validate(Recipe, {"strategy": "file", "reads": "captions.txt", "count": 1, **values}, "prompts.mine")


def row(prompt: str, **values: object) -> dict:
    return {"key": "mine-000000", "prompt": prompt, "negative_prompt": "", **values}


def shoes(tokens: int) -> str:
    """A prompt of so many tokens for the shipped generator, with the marks at its ends."""
    return " ".join(["shoe"] * (tokens - 2))


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (row(shoes(32)), None),
        (row(shoes(33)), {"tokens": 33, "read": 32}),
        (row("a shoe", negative_prompt=shoes(40)), {"tokens": 40, "read": 32}),
        (row(shoes(50), parts=[shoes(20), shoes(32)]), None),
        (row("a shoe", parts=[shoes(20), shoes(34)]), {"tokens": 34, "read": 32}),
    ],
)
def test_what_is_cut(given: dict, found: dict | None, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizers = load_tokenizers(FASHION)
    (written,) = within_limits([given], "mine", recipe(too_long="cut"), tokenizers)
    assert written == (given if found is None else {**given, "cut": found})
    assert list(written)[: len(given)] == list(given), "the same bytes but for the mark"
    if found is None:
        assert list(within_limits([given], "mine", recipe(), tokenizers)) == [given]
        assert not capsys.readouterr().err
    else:
        assert "1 of 1 prompts of `prompts.mine` are longer" in capsys.readouterr().err
        with pytest.raises(InputError, match="1 of 1 prompts .* the first is mine-000000, of .* set `prompts.mine.too"):
            list(within_limits([given], "mine", recipe(), tokenizers))


def test_all_prompts_are_counted_before_the_error() -> None:
    rows = [row(shoes(30 + i % 5)) for i in range(10_000)]
    with pytest.raises(InputError, match="4000 of 10000 prompts .* of 33 tokens, of which 32 are read: 'shoe shoe"):
        list(within_limits(rows, "mine", recipe(), load_tokenizers(FASHION)))


def test_a_stage_refuses_or_records(workspace: Path, stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    mine = {"strategy": "file", "reads": "mine.txt", "count": 4}
    (workspace / "mine.txt").write_text("a b\n" + "a b " * 40 + "\n")
    edit_params(workspace / "params.yaml", **{"prompts.mine": mine})
    assert stage("prompts", "mine") == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: params.yaml: 2 of 4 prompts of `prompts.mine`") and "of 82 tokens" in error
    assert not list(Path("data").rglob("*mine*"))
    edit_params(workspace / "params.yaml", **{"prompts.mine": {**mine, "too_long": "cut"}})
    assert stage("prompts", "mine") == 0
    assert stage("synthesize", "mine") == 0
    for file in ("data/prompts/mine.jsonl", "data/synthetic/mine/index.jsonl"):
        assert [row.get("cut") for row in read_lines(Path(file))] == [None, {"tokens": 82, "read": 77}] * 2


@pytest.mark.parametrize("value", ["x", 0, -1, True, [77], {"a": 1}])
def test_a_limit_that_is_no_number_of_tokens(value: object, tmp_path: Path) -> None:
    shutil.copytree(FASHION, tmp_path / "generator")
    config = tmp_path / "generator/tokenizer/tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_max_length": value}))
    with pytest.raises(InputError, match="generator: .*tokenizer") as found:
        load_tokenizers(tmp_path / "generator")
    assert "\n" not in str(found.value)


def test_every_tokenizer_counts(tmp_path: Path) -> None:
    """Stable Diffusion 3 has three: two of CLIP and T5, of which the pipeline reads 256 tokens and T5 itself 512."""
    from tokenizers import Tokenizer as Fast
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import T5Tokenizer  # noqa: F401 the class that model_index.json names

    shutil.copytree(FASHION / "tokenizer", tmp_path / "tokenizer")
    t5 = Fast(WordLevel({"<unk>": 0, "</s>": 1, "<pad>": 2}, unk_token="<unk>"))
    t5.pre_tokenizer = Whitespace()
    (tmp_path / "tokenizer_3").mkdir()
    t5.save(str(tmp_path / "tokenizer_3/tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, "unk_token": "<unk>"}
    (tmp_path / "tokenizer_3/tokenizer_config.json").write_text(json.dumps(config))
    index = {
        "_class_name": "StableDiffusion3Pipeline",
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": [None, None],
        "tokenizer_3": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": ["diffusers", "SD3Transformer2DModel"],
    }
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    clip, other = load_tokenizers(tmp_path)
    assert (clip.limit, other.limit) == (32, 256)
    texts = [shoes(20), shoes(40), shoes(302)]
    found = [written.get("cut") for written in within_limits(map(row, texts), "x", recipe(too_long="cut"), [other])]
    assert found == [None, None, {"tokens": 300, "read": 256}]
    found = [
        written.get("cut") for written in within_limits(map(row, texts), "x", recipe(too_long="cut"), [clip, other])
    ]
    assert found == [None, {"tokens": 40, "read": 32}, {"tokens": 302, "read": 32}]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("tokenizer/tokenizer.json", "{", r"cannot load tokenizer .CLIPTokenizer."),
        ("tokenizer/tokenizer_config.json", "{}", "expected `model_max_length` in tokenizer/tokenizer_config.json"),
        ("model_index.json", "{", "model_index.json: not JSON"),
        ("model_index.json", '{"tokenizer": ["transformers"]}', "expected `tokenizer` to be .library, class."),
        ("model_index.json", '{"tokenizer": ["transformers", "NoTokenizer"]}', "cannot load tokenizer .NoTokenizer."),
        ("model_index.json", '{"tokenizer_2": ["transformers", "CLIPTokenizer"]}', "tokenizer_2/, which is absent"),
    ],
)
def test_tokenizers_that_cannot_be_had(tmp_path: Path, file: str, content: str, said: str) -> None:
    shutil.copytree(FASHION, tmp_path / "generator")
    (tmp_path / "generator" / file).write_text(content)
    with pytest.raises(InputError, match=said) as found:
        load_tokenizers(tmp_path / "generator")
    assert "\n" not in str(found.value)


def test_counting_needs_no_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from pipeline_lib.prompts.limits import load_tokenizers;"
        f"print(load_tokenizers(Path({str(FASHION)!r}))[0].count(['a shoe']), 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["[4]", "False"]
