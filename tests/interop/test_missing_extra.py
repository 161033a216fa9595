"""Without the extra `interop`: the package is imported, and what needs the extra names it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HIDDEN = """
import sys
for name in ("arviz", "blackjax", "numpyro"):
    sys.modules[name] = None
import flax.linen as nn
import numpy as np
import vaeflow as vf

assert set(vf.interop.__all__) <= set(dir(vf.interop))
# Of JAX alone.
pullback = vf.interop.blackjax.pull_back(np.sum, vf.flows.RealNVP((2,)))
vf.interop.tfp.as_bijector(vf.bijectors.Exp())
import jax
USES = {
    "arviz": lambda: vf.interop.arviz.from_chains(np.zeros((2, 5))),
    "blackjax": lambda: vf.interop.blackjax.nuts(pullback, {}, jax.random.key(0)),
    "numpyro": lambda: vf.interop.numpyro,
}
for package, use in USES.items():
    try:
        use()
    except ValueError as error:
        print(f"{package}: {error}")
    else:
        print(f"{package}: no error")
try:
    vf.interop.nothing
except AttributeError as error:
    print(f"nothing: {error}")
"""


@pytest.fixture(scope="module")
def messages() -> dict[str, str]:
    """The message of the error for each package, in a process that has none of them."""
    process = subprocess.run(
        [sys.executable, "-c", HIDDEN], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    return dict(line.split(": ", 1) for line in process.stdout.splitlines())


@pytest.mark.parametrize("package", ["arviz", "blackjax", "numpyro"])
def test_a_missing_package_is_named_with_the_extra(messages, package):
    assert f"needs the package {package}; pip install 'vaeflow[interop]'" in messages[package]


def test_an_unknown_module_is_no_attribute(messages):
    assert messages["nothing"] == "module 'vaeflow.interop' has no attribute 'nothing'"
