"""Compiler options: unknown ones and other platforms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow.training import parallel
from vaeflow.training.parallel import compiler_options


@pytest.fixture(autouse=True)
def _forgetful():
    compiler_options.cache_clear()
    yield
    compiler_options.cache_clear()


def test_options_change_rounding_alone():
    options = compiler_options("cpu")
    x = jax.random.normal(jax.random.key(0), (64, 50))
    product = jax.jit(lambda x: x @ x.T, compiler_options=options)(x)
    np.testing.assert_allclose(product, jnp.matmul(x, x.T), rtol=1e-4, atol=1e-4)


def test_other_platforms_have_no_options():
    assert compiler_options("gpu") == compiler_options("tpu") == {}


def test_unknown_options_are_left_out(monkeypatch):
    monkeypatch.setattr(parallel, "CPU_OPTIONS", {"xla_cpu_of_another_age": ""})
    assert compiler_options("cpu") == {}


def test_known_options_are_kept(monkeypatch):
    known = {"xla_cpu_enable_fast_min_max": True}
    monkeypatch.setattr(parallel, "CPU_OPTIONS", known)
    assert compiler_options("cpu") == known
