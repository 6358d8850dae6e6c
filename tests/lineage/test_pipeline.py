"""The stages that dvc.yaml declares, against DVC's own reading of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_lib.provenance.dvc_file import declared_stages

DVC_YAML = """\
stages:
  prompts:
    foreach: ${prompts}
    do:
      cmd: python -m stages.prompts ${key}
      deps: ["${item.file}", "${folder}/classes.csv"]
      params: ["prompts.${key}"]
      outs: ["out/${key}.jsonl", {"table/${key}": {cache: false}}]
  listed:
    foreach: [one, 2]
    do:
      cmd: echo ${item}
      outs: ["listed-${item}"]
  cells:
    matrix: {source: "${sources}", bits: [4, 2]}
    cmd: python -m stages.cells ${item.source} ${item.bits}
    deps: ["out/${item.source}.jsonl"]
    outs: ["cells/${key}"]
  none:
    matrix: {source: "${nothing}"}
    cmd: echo ${item.source}
  last:
    cmd: python -m stages.last
    frozen: true
"""
PARAMS = """\
folder: data
sources: [mixup]
nothing: []
prompts: {mixup: {file: a.txt}, single: {file: b.txt}}
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("repository")
def test_a_stage_of_each_key_and_of_each_combination() -> None:
    declared = declared_stages()
    mixup = declared["prompts@mixup"]
    assert mixup.command == "python -m stages.prompts mixup"
    assert mixup.script == "stages/prompts.py"
    assert mixup.deps == ["a.txt", "data/classes.csv"]
    assert mixup.params == ["prompts.mixup"]
    assert mixup.outs == ["out/mixup.jsonl", "table/mixup"]
    assert declared["prompts@single"].deps[0] == "b.txt"
    assert declared["cells@mixup-4"].outs == ["cells/mixup-4"]
    assert declared["cells@mixup-2"].command == "python -m stages.cells mixup 2"
    assert declared["listed@2"].outs == ["listed-2"]
    assert declared["listed@2"].script is None
    assert [name for name, stage in declared.items() if stage.frozen] == ["last"]


@pytest.mark.usefixtures("repository")
def test_dvc_has_the_same_stages() -> None:
    dvc = str(Path(sys.executable).parent / "dvc")
    subprocess.run([dvc, "init", "-q", "--no-scm"], check=True)
    listed = subprocess.run([dvc, "stage", "list", "--name-only"], check=True, capture_output=True, text=True).stdout
    assert set(declared_stages()) == set(listed.split())
