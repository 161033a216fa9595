"""Counts of what a script asks of its reader, in its source, by the same rules for every library.

Libraries aren't imported, so that scripts are counted where theirs isn't installed. The sources are
formatted, with lines of at most 100 columns.

Left out everywhere are the docstrings, whatever is imported from `benchmarks.usage`, and calls at
the top level of functions that are imported from there, which are the checks.

- **Statements**: nodes `ast.stmt`, nested ones too, but for imports. A loop is one statement, and
  those of its body are others; so are a class or a function and theirs.
- **Lines**: physical lines with code on them, but for those of imports.
- **Imports**: names that import statements bind.
- **Concepts**: the names of libraries that the script spells out, each once:

  - dotted names that start at an imported module or name, such as ``torch.optim.Adam``, as one
    concept each, by the module that they come from: `DataLoader` after ``from torch.utils.data
    import DataLoader`` is ``torch.utils.data.DataLoader``;
  - attributes of anything else, such as `fit` in ``model.fit(rows)``, by their name alone;
  - methods that a class of the script implements for the library, but for `__init__`.

  The standard library, NumPy, builtins, names of the script itself and attributes that it sets
  aren't counted, nor is any name that NumPy has as an elementwise function or as a method of
  arrays, such as `exp`, `mean` and `reshape`, whichever library it is taken from. Nor are names of
  keyword arguments.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

OWN = "benchmarks.usage"

_WITHOUT_CODE = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}


class Counts(NamedTuple):
    """Counts of a script; the module says what they are."""

    statements: int
    lines: int
    imports: int
    concepts: frozenset[str]


def count(source: str) -> Counts:
    """Counts a script.

    Raises:
      SyntaxError: If the source isn't Python.
    """
    tree = ast.parse(source)
    left_out = [
        *(node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)),
        *_docstrings(tree),
        *_checks(tree),
    ]
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    without = {line for node in left_out for line in range(node.lineno, node.end_lineno + 1)}
    return Counts(
        statements=len(statements) - len(left_out),
        lines=len(_lines_of_code(source) - without),
        imports=len(_imported(tree)),
        concepts=frozenset(_concepts(tree)),
    )


def _docstrings(tree: ast.Module) -> Iterator[ast.stmt]:
    holders = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if isinstance(node, holders) and ast.get_docstring(node, clean=False) is not None:
            yield node.body[0]


def _checks(tree: ast.Module) -> Iterator[ast.stmt]:
    """Top-level calls of what is imported from this package."""
    own = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and _is_own(node.module)
        for alias in node.names
    }
    for node in tree.body:
        call = node.value if isinstance(node, ast.Expr) else None
        function = call.func if isinstance(call, ast.Call) else None
        if isinstance(function, ast.Name) and function.id in own:
            yield node


def _lines_of_code(source: str) -> set[int]:
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _WITHOUT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines


def _imported(tree: ast.Module) -> dict[str, str]:
    """Dotted names by the names that import statements bind."""
    bound = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.partition(".")[0]
                bound[alias.asname or root] = alias.name if alias.asname else root
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                bound[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return {name: place for name, place in bound.items() if not _is_own(place)}


def _concepts(tree: ast.Module) -> Iterator[str]:
    """Names of libraries, with repetitions."""
    imported, own = _imported(tree), _own_attributes(tree)
    inner: set[int] = set()  # parts of a longer dotted name
    for node in ast.walk(tree):  # a dotted name comes before its parts
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            parts, root = [], node
            while isinstance(root, ast.Attribute):
                parts.insert(0, root.attr)
                root = root.value
                inner.add(id(root))
            if isinstance(root, ast.Name) and root.id in imported:
                yield from _counted([".".join([imported[root.id], *parts])])
            else:
                yield from _counted([part for part in parts if part not in own])
        elif isinstance(node, ast.Name) and id(node) not in inner and node.id in imported:
            yield from _counted([imported[node.id]])
        elif isinstance(node, ast.ClassDef) and node.bases:
            methods = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
            yield from _counted(methods)


def _own_attributes(tree: ast.Module) -> set[str]:
    """Attributes that the script itself sets, on objects or in the body of a class."""
    found = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    bodies = (node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    for item in (item for body in bodies for item in body):
        targets = item.targets if isinstance(item, ast.Assign) else [getattr(item, "target", None)]
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def _counted(names: list[str]) -> Iterator[str]:
    for name in names:
        root, last = name.partition(".")[0], name.rpartition(".")[2]
        library = "." not in name or root not in {"numpy", *sys.stdlib_module_names}
        if library and not _is_of_numpy(last) and not last.startswith("__"):
            yield name


def _is_of_numpy(name: str) -> bool:
    """Whether NumPy has an elementwise function or its arrays have a method of this name."""
    return isinstance(getattr(np, name, None), np.ufunc) or hasattr(np.ndarray, name)


def _is_own(module: str | None) -> bool:
    return module is not None and f"{module}.".startswith(f"{OWN}.")
