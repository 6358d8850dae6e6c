"""What keeps the project readable: short files, explained parameters, links that lead somewhere, pinned versions."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

WIDTH = 120
LINES = {"README.md": 150, "params.yaml": 179, "dvc.yaml": 249}
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("data/**/README.md")]
REQUIREMENTS = ["requirements.txt", "requirements-ray.txt", "requirements-dev.txt"]
MANY = 5  # parameters, from which each is explained under `Args:`
BACKENDS = [ROOT / "pipeline_lib/fakequant" / name for name in ("cpu.py", "cuda.py")]  # reference.py documents them

Function = ast.FunctionDef | ast.AsyncFunctionDef


@pytest.mark.parametrize("name", LINES)
def test_what_is_read_first_stays_short(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    assert len(lines) <= LINES[name]
    assert [number for number, line in enumerate(lines, 1) if len(line) > WIDTH] == []


def public_functions(tree: ast.Module) -> Iterator[tuple[str, list[str], str]]:
    """Name, parameters without self or cls, and docstring; for `__init__` also the docstring of its class."""
    for node in tree.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node.name, parameters(node), ast.get_docstring(node) or ""
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in (member for member in node.body if isinstance(member, Function)):
                if method.name == "__init__" or not method.name.startswith("_"):
                    bound = "staticmethod" not in [ast.unparse(d) for d in method.decorator_list]
                    of_class = ast.get_docstring(node) or "" if method.name == "__init__" else ""
                    docstring = f"{of_class}\n\n{ast.get_docstring(method) or ''}"
                    yield f"{node.name}.{method.name}", parameters(method)[bound:], docstring


def parameters(function: Function) -> list[str]:
    every = function.args
    rest = [argument for argument in (every.vararg, every.kwarg) if argument is not None]
    return [a.arg for a in (*every.posonlyargs, *every.args, *every.kwonlyargs, *rest)]


def explained(docstring: str) -> set[str]:
    """The names under `Args:`: `name: meaning` or `one, other: meaning`. Lines that continue are indented further."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", docstring, re.MULTILINE)
    if section is None:
        return set()
    lines = [line for line in section[1].splitlines() if line.strip()]
    indent = min(len(line) - len(line.lstrip()) for line in lines)
    entries = [re.match(r"([\w*]+(?:, [\w*]+)*):", line[indent:]) for line in lines]
    return {name.strip(" *") for entry in entries if entry for name in entry[1].split(",")}


def modules() -> list[Path]:
    files = ROOT.glob("pipeline_lib/**/*.py")  # of stages and commands typer prints `help` of each parameter
    commands = ROOT / "pipeline_lib/commands"
    return sorted(file for file in files if file not in BACKENDS and file.parent != commands)


def test_many_parameters_are_explained() -> None:
    differences = []
    for module in modules():
        for name, names, docstring in public_functions(ast.parse(module.read_text())):
            differing = sorted(set(names) ^ explained(docstring))
            if len(names) >= MANY and differing:
                differences.append(f"{module.relative_to(ROOT)}: {name}: {', '.join(differing)}")
    assert not differences, "`Args:` lacks these, or names what is no parameter:\n" + "\n".join(differences)


def test_the_check_of_parameters_sees_what_is_missing() -> None:
    source = '''
class Public:
    """Of two.

    Args:
        a, b: both
            c: a line that continues, no parameter
    """

    def __init__(self, a, b): ...

    @staticmethod
    def fixed(a, *rest, b): ...

    def _hidden(self): ...

def _hidden(): ...
'''
    found = {name: (names, explained(docstring)) for name, names, docstring in public_functions(ast.parse(source))}
    assert found == {"Public.__init__": (["a", "b"], {"a", "b"}), "Public.fixed": (["a", "b", "rest"], set())}


def test_constraints_pin_what_is_required() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == [], "name==version, and no build"
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    for file in REQUIREMENTS:
        wanted = [line.partition("#")[0].strip() for line in (ROOT / file).read_text().splitlines()]
        for requirement in (Requirement(line) for line in wanted if line and not line.startswith("-r ")):
            version = pins.get(canonicalize_name(requirement.name))
            assert version is not None and requirement.specifier.contains(version), f"{file}: {requirement}, {version}"


def test_the_licence_is_the_one_that_pyproject_names() -> None:
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text()


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}"


def test_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)", (ROOT / "README.md").read_text()))
    assert linked == {str(page.relative_to(ROOT)) for page in ROOT.glob("docs/*.md")}


def test_every_room_is_in_the_architecture() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    assert {file.parent.name for file in ROOT.glob("pipeline_lib/*/__init__.py")} <= set(rows)
