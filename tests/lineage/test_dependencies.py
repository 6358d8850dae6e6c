"""`python -m pipeline_lib dependencies` on a small repository."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline_lib.__main__ import app
from pipeline_lib.errors import InputError
from pipeline_lib.lineage.dependencies import code_of, with_dependencies
from pipeline_lib.yaml_file import read_yaml

runner = CliRunner()

MODULES = {
    "stages/work.py": "from pipeline_lib.params.work import Work\nfrom pipeline_lib.long.one import x\n",
    "stages/rest.py": "import pipeline_lib.whole.one, pipeline_lib.native.one, pipeline_lib.errors\n",
    "pipeline_lib/errors.py": "",
    "pipeline_lib/params/work.py": "",
    "pipeline_lib/params/rest.py": "",
    "pipeline_lib/long/one.py": "def x():\n    from pipeline_lib.long.deep import two\n",
    "pipeline_lib/long/deep/two.py": "",
    "pipeline_lib/long/three.py": "",
    "pipeline_lib/whole/one.py": "from pipeline_lib.whole import two\n",
    "pipeline_lib/whole/two.py": "",
    "pipeline_lib/native/one.py": "",
    "pipeline_lib/native/two.py": "",
    "pipeline_lib/native/csrc/kernel.cpp": "",
}
DVC_YAML = """\
# kept
stages:
  work: &work
    cmd: python -m stages.work ${item}  # kept
    matrix: {x: [1]}
    deps: ["data/${item.x}",  # and this
      data/b, # code, by rooms
      pipeline_lib/gone.py]
    outs: [a]

  again:
    <<: *work
    outs: [b]

  each:
    foreach: ${prompts}
    do:
      cmd: python -m stages.rest ${key}
      deps: [data/a, # code
        ]
      outs: ["${key}"]

plots: [c]
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in MODULES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_checks_and_writes(repository: Path) -> None:
    checked = runner.invoke(app, ["dependencies"])
    assert checked.exit_code == 1
    assert "-      pipeline_lib/gone.py]" in checked.stdout.splitlines()
    assert "--write" in checked.stderr
    assert Path("dvc.yaml").read_text() == DVC_YAML, "a check writes nothing"

    assert runner.invoke(app, ["dependencies", "--write"]).exit_code == 0
    work = "pipeline_lib/long, pipeline_lib/params/work.py, stages/work.py"
    rest = "pipeline_lib/errors.py, pipeline_lib/native, pipeline_lib/whole, stages/rest.py"
    expected = DVC_YAML.replace("pipeline_lib/gone.py", work).replace("        ]", f"        {rest}]")
    assert Path("dvc.yaml").read_text() == expected
    assert read_yaml(Path("dvc.yaml"), "")["stages"]["again"]["deps"] == ["data/${item.x}", "data/b", *work.split(", ")]

    checked = runner.invoke(app, ["dependencies"])
    assert (checked.exit_code, checked.output) == (0, "")


def test_modules_are_named_unless_a_room_is_imported_whole_or_holds_other_files(repository: Path) -> None:
    room = ["pipeline_lib/long/deep/two.py", "pipeline_lib/long/one.py"]
    assert code_of(repository / "stages/work.py", repository, by_rooms=False) == [
        *room,
        "pipeline_lib/params/work.py",
        "stages/work.py",
    ]
    (repository / "pipeline_lib/whole/three.py").touch()
    code = code_of(repository / "stages/rest.py", repository, by_rooms=False)
    assert "pipeline_lib/whole" not in code
    assert {"pipeline_lib/native", "pipeline_lib/whole/one.py", "pipeline_lib/whole/two.py"} <= set(code)


def test_lines_are_wrapped(repository: Path) -> None:
    names = [f"module{number:02}" for number in range(40)]
    for name in names:
        (repository / f"pipeline_lib/long/{name}.py").touch()
    (repository / "stages/rest.py").write_text("".join(f"import pipeline_lib.long.{name}\n" for name in names))
    text = with_dependencies(repository)
    assert 3 * len("pipeline_lib/long/module00.py") < max(map(len, text.splitlines())) <= 120
    Path("dvc.yaml").write_text(text)
    assert len(read_yaml(Path("dvc.yaml"), "")["stages"]["each"]["do"]["deps"]) == 1 + 40 + 1
    assert with_dependencies(repository) == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((" # code\n", "\n"), "each imports .*, which its deps lack; write `# code`"),
        (("stages.rest", "stages.absent"), "each runs `python -m stages.absent .*expected"),
        (("python -m stages.rest", "echo"), "each runs `echo .*expected"),
    ],
)
def test_a_stage_whose_code_cannot_be_written_is_an_error(
    repository: Path, change: tuple[str, str], message: str
) -> None:
    Path("dvc.yaml").write_text(DVC_YAML.replace(*change))
    with pytest.raises(InputError, match=message):
        with_dependencies(repository)
