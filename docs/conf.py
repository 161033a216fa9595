"""The site: pages that are executed, and a reference from the docstrings.

Pages in MyST are notebooks kept as text. Each is executed when it or the library has changed, and a
cell that fails, or writes to its error stream, fails the build.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import pathlib
import pkgutil
import re
import sys

from docutils import nodes
from jupyter_cache import get_cache
from jupyter_cache.executors import load_executor
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform
from sphinx.util import inspect as sphinx_inspect
from sphinx.util import logging

import vaeflow

DOCS = pathlib.Path(__file__).parent
ROOT = DOCS.parent


def library_digest() -> str:
    """Digest of the sources that the pages run: results of another are executed anew."""
    digest = hashlib.sha256()
    for package in ("vaeflow", "experiments"):
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


project = "vaeflow"
release = importlib.metadata.version("vaeflow")
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_codeautolink",
    "sphinx_copybutton",
    "sphinx_design",
]
html_theme = "furo"
html_title = f"vaeflow {release}"
html_show_copyright = False
html_show_sphinx = False
MATHJAX = importlib.util.find_spec("sphinx-mathjax-offline").submodule_search_locations[0]
html_static_path = ["_static", os.path.join(MATHJAX, "static")]
html_extra_path = ["gallery"]  # figures at their full size, which the page links to
mathjax_path = "mathjax/tex-chtml.js"  # no request leaves the site
html_css_files = ["vaeflow.css"]
exclude_patterns = ["_build", "gallery/README.md"]

# Pages that are executed.
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
nb_execution_mode = "cache"
nb_execution_cache_path = str(DOCS / "_build" / "executed" / library_digest())
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_output_stderr = "remove-warn"
nb_merge_streams = True
nb_number_source_lines = False
# The kernels inherit these: no bars on pages, one seed of Python's hashes, and the checkout's
# experiments.
os.environ |= {"TQDM_DISABLE": "1", "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT)}

# Names in code link to the reference, and the reference to the pages whose code uses them.
codeautolink_concat_default = True
codeautolink_autodoc_inject = True
codeautolink_warn_on_default_parse_fail = False

# A name in single backticks links to what it names, if that is on a page.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autosummary_generate = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# The signature has the types.
napoleon_attr_annotations = False
napoleon_use_ivar = True
napoleon_use_rtype = False
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True

sys.path += [str(ROOT), str(DOCS)]
gallery = importlib.import_module("gallery")

PAGES = DOCS / "api"


def execute_pages(app: Sphinx) -> None:
    """Executes the pages that aren't in the cache, on all cores; Sphinx would take them in turn."""
    if app.config.nb_execution_mode == "off":
        return
    cache = get_cache(app.config.nb_execution_cache_path)
    for path in sorted(DOCS.rglob("*.md")):
        if "_build" not in path.parts and "\nkernelspec:" in path.read_text()[:500]:
            cache.add_nb_to_project(str(path), read_data={"name": "myst_nb_md", "type": "plugin"})
    executor = load_executor("temp-parallel", cache)
    executor.run_and_cache(timeout=app.config.nb_execution_timeout)


class NameLinks(SphinxTransform):
    """Makes names of the library in code font, such as ``vf.flows.Glow``, links to the reference.

    A name that is on no page is a warning.
    """

    default_priority = 5

    def apply(self) -> None:
        """Replaces each such literal by a reference that holds it."""
        for literal in list(self.document.findall(nodes.literal)):
            match = re.fullmatch(r"vf((?:\.\w+)+)(?:\(\))?", literal.astext())
            if match is None or isinstance(literal.parent, addnodes.pending_xref):
                continue
            reference = addnodes.pending_xref(
                literal.rawsource,
                literal.deepcopy(),
                refdomain="py",
                reftype="obj",
                reftarget="vaeflow" + match[1],
                refdoc=self.env.docname,
                refexplicit=True,
                refwarn=True,
            )
            literal.replace_self(reference)


def link_files(app: Sphinx, docname: str, content: list[str]) -> None:
    """Makes links to names in files outside of docs, such as tests, links to these files.

    In ``[text](../tests/test_axis.py#test_row_keys)`` the name is a function, a class, or the
    anchor of a heading; a file that lacks it is a warning. Copies of the files are on the site.
    """
    folder = pathlib.Path(app.env.doc2path(docname)).parent

    def link(match: re.Match) -> str:
        path, name = match.groups()
        file = (folder / path).resolve()
        if file.is_relative_to(DOCS):
            return match[0]
        names = names_in(file.read_text(), file.suffix) if file.is_file() else set()
        if name not in names:
            message = "%s has no %s" if file.is_file() else "%s doesn't exist (for %s)"
            logging.getLogger(__name__).warning(message, path, name, location=docname)
        return f"](path:{path})"

    content[0] = re.sub(r"\]\((\.\./[\w./-]+)#([\w-]+)\)", link, content[0])


def names_in(text: str, suffix: str) -> set[str]:
    """Names of functions and classes of a module, or anchors of the headings of a Markdown file."""
    if suffix == ".py":
        return set(re.findall(r"^ *(?:def|class) (\w+)", text, re.MULTILINE))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def public_names() -> dict[str, list[str]]:
    """Public names by module: vaeflow, its packages and modules, and the modules that they list.

    A module that vaeflow itself lists all names of, such as `vaeflow.interpolation`, has no page.
    """
    pages: dict[str, list[str]] = {}
    modules = [module.name for module in pkgutil.iter_modules(vaeflow.__path__)]
    modules = ["vaeflow", *(f"vaeflow.{name}" for name in modules if not name.startswith("_"))]
    for name in modules:
        module = importlib.import_module(name)
        values = {entry: getattr(module, entry) for entry in module.__all__}
        listed = [value.__name__ for value in values.values() if inspect.ismodule(value)]
        modules += [module for module in listed if module not in modules]
        names = [entry for entry, value in values.items() if not inspect.ismodule(value)]
        if name == "vaeflow" or not set(names) <= set(vaeflow.__all__):
            pages[name] = names
    return pages


def canonical_names(app: Sphinx, config: Config) -> None:
    """Maps names where they are defined to the public ones, which the reference has."""
    for package, names in public_names().items():
        for name in names:
            value = getattr(importlib.import_module(package), name)
            defined = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
            config.codeautolink_inventory_map.setdefault(defined, f"{package}.{name}")


def write_pages(app: Sphinx) -> None:
    """Writes the source of a page for each public package or module."""
    PAGES.mkdir(exist_ok=True)
    pages = {f"{package}.rst": _page(package, names) for package, names in public_names().items()}
    for page in PAGES.glob("*.rst"):
        if page.name not in pages:
            page.unlink()
    for name, text in pages.items():
        _write_changed(PAGES / name, text)
    _write_changed(DOCS / "gallery.md", gallery.page())


def _write_changed(path: pathlib.Path, text: str) -> None:
    """Writes a file unless it holds the text already: Sphinx reads again what is newer."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _page(package: str, names: list[str]) -> str:
    module = importlib.import_module(package)
    lines = [package, "=" * len(package), "", f".. automodule:: {package}", "   :no-members:", ""]
    lines += [".. autosummary::", "   :nosignatures:", ""]
    lines += [f"   {name}" for name in names]
    for name in names:
        value = getattr(module, name)
        lines += ["", f".. {_directive(value)}:: {package}.{name}"]
        if inspect.isclass(value):
            lines += ["   :members:", "   :show-inheritance:"]
    return "\n".join(lines) + "\n"


def _directive(value: object) -> str:
    if inspect.isclass(value):
        return "autoexception" if issubclass(value, BaseException) else "autoclass"
    # Functions with derivatives of their own are objects, callable all the same.
    return "autofunction" if callable(value) else "autodata"


def check_pages(app: Sphinx, environment: BuildEnvironment) -> None:
    """Warns of each public name that isn't on a page."""
    logger = logging.getLogger(__name__)
    rendered = environment.domains.python_domain.objects
    for package, names in public_names().items():
        for name in names:
            if f"{package}.{name}" not in rendered:
                logger.warning("%s.%s is on no page", package, name)


def class_signature(
    app: Sphinx, what: str, name: str, value: object, options: object, signature: str, result: str
) -> tuple[str, str | None] | None:
    """Gives a class whose metaclass hides its arguments the signature of its `__init__`."""
    if what != "class" or signature != "(*args, **kwargs)":
        return None
    own = sphinx_inspect.signature(value.__init__, bound_method=True)
    own = own.replace(return_annotation=inspect.Signature.empty)
    return sphinx_inspect.stringify_signature(own, unqualified_typehints=True), None


def setup(app: Sphinx) -> None:
    """Connects these functions to the build."""
    app.connect("autodoc-process-signature", class_signature)
    app.connect("config-inited", canonical_names)
    app.connect("builder-inited", write_pages)
    app.connect("builder-inited", execute_pages)
    app.connect("source-read", link_files)
    app.add_transform(NameLinks)
    app.connect("env-check-consistency", check_pages)
