"""The pages of the documentation: their form, the names that they use, and that their code runs.

`make docs` executes them as notebooks, with their figures; here they run as scripts.
"""

from __future__ import annotations

import ast
import functools
import os
import pathlib
import re
import subprocess
import sys

import pytest

import vaeflow

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = {
    path.relative_to(DOCS).as_posix(): path.read_text()
    for path in sorted(DOCS.rglob("*.md"))
    if "_build" not in path.parts and path.name != "README.md"
}
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(?:---\n.*?\n---\n)?(.*?)^```", re.S | re.M)
SECTIONS = {
    "lecture/": ("## Common misunderstandings", "## Exercise"),
    "tutorials/": ("## What can go wrong",),
}


def cells(text):
    """The code of each cell, without its options."""
    return [re.sub(r"\A(:[\w-]+:[^\n]*\n)+\n?", "", code) for code in CELL.findall(text)]


EXECUTED = [name for name, text in PAGES.items() if cells(text)]


@functools.cache
def resolves(name):
    """Whether a dotted name is an attribute of vaeflow; a field of a dataclass counts."""
    value = vaeflow
    for part in name.split("."):
        fields = getattr(value, "__dataclass_fields__", {})
        if part not in fields and not hasattr(value, part):
            return False
        value = getattr(value, part, None)
    return True


def names_of(code):
    """The dotted names of a cell that begin with vf."""
    dotted = {ast.unparse(node) for node in ast.walk(ast.parse(code)) if is_dotted(node)}
    return {name for name in dotted if name.startswith("vf.")}


def is_dotted(node):
    """Whether a node is made of names and attributes alone."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name)


@pytest.mark.parametrize("page", PAGES)
def test_names_exist(page):
    text = PAGES[page]
    used = set(re.findall(r"`(vf(?:\.\w+)+)(?:\(\))?`", CELL.sub("", text)))
    for code in cells(text):
        used |= names_of(code)
    assert {name for name in used if not resolves(name.removeprefix("vf."))} == set()


@pytest.mark.parametrize("page", EXECUTED)
def test_cells_are_as_wide_as_the_page(page):
    lines = [line for code in cells(PAGES[page]) for line in code.splitlines()]
    assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize("page", [name for name in PAGES if "/" in name])
def test_pages_have_their_sections_and_are_listed(page):
    folder, name = page.rsplit("/", 1)
    if name == "index.md":
        return
    for section in SECTIONS[f"{folder}/"]:
        assert f"\n{section}\n" in PAGES[page]
    assert f"\n{name.removesuffix('.md')}\n" in PAGES[f"{folder}/index.md"]
    assert cells(PAGES[page])


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize("page", EXECUTED)
def test_code_runs(page, tmp_path):
    script = tmp_path / "page.py"
    script.write_text("\n".join(cells(PAGES[page])))
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error::DeprecationWarning:__main__",
        "MPLBACKEND": "agg",
        "TQDM_DISABLE": "1",
    }
    ended = subprocess.run(
        [sys.executable, script.name],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
