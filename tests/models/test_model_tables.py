"""Flax's tables of modules, whose cells hold distributions, bijectors and keys."""

from __future__ import annotations

import re
import subprocess
import sys

import flax.linen as nn
import jax
import numpy as np
import pytest

from tests.golden.models import MODELS
from vaeflow import models

QUICK = {"maf-context", "vae-vamp", "codes-two-levels"}


def test_every_model_is_here():
    modules = {
        kind
        for name in models.__all__
        if isinstance(kind := getattr(models, name), type) and issubclass(kind, nn.Module)
    }
    made = [golden.build() for golden in MODELS.values()]
    parts = [part for model in made for part in vars(model).values()]
    parts += [part for several in parts if isinstance(several, tuple) for part in several]
    here = {kind for part in (*made, *parts) for kind in type(part).__mro__}
    assert modules - here <= {models.ContentStyleCoder}  # which a MUNIT holds by domain


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in MODELS],
)
def test_tables_of_models_count_their_parameters(name):
    golden = MODELS[name]
    keywords = {} if golden.context is None else {"context": golden.context}
    table = nn.tabulate(
        golden.build(),
        jax.random.key(0),
        console_kwargs={"width": 300, "force_terminal": False},
    )(*golden.inputs, **keywords)
    total = re.search(r"Total Parameters: ([\d,]+)", table)[1]
    leaves = jax.tree.leaves(jax.eval_shape(golden.init))
    assert int(total.replace(",", "")) == sum(np.prod(leaf.shape, dtype=int) for leaf in leaves)
    assert golden.build().__class__.__name__ in table


ALONE = """
import jax, numpy as np, flax.linen as nn
from vaeflow import {package}
module = {package}.{made}
print(nn.tabulate(module, jax.random.key(0), console_kwargs={{"force_terminal": False}})({given}))
"""


@pytest.mark.parametrize(
    ("package", "made", "given", "shown"),
    [
        ("flows", "PlanarFlow((3,), num_steps=2)", "", "Scan"),
        ("bases", "DiagonalGaussianBase((3,))", "", "Independent"),
        ("encoders", "FullGaussianPosterior(2)", "np.ones((4, 3))", "FullGaussian"),
    ],
)
@pytest.mark.slow
def test_tables_of_parts_need_no_other_package(package, made, given, shown):
    source = ALONE.format(package=package, made=made, given=given)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    assert re.search(rf"\b{shown}\b", done.stdout)
