"""Checks bijectors in float64, in a process of their own: ``python -m tests.float64``."""

from __future__ import annotations

import dataclasses
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

from tests import registry  # noqa: E402
from tests.golden import models as stored_models  # noqa: E402
from vaeflow import flows, models  # noqa: E402
from vaeflow.testing import run_check  # noqa: E402

CHECKS = ("round trip", "log-det symmetry", "log-det")
TOLERANCE = 1e-9
COARSER = {"Continuous": 1e-4}
"""Tolerances that are wider: it is solved to 1e-5 a step."""

SEARCHED = {
    "BernsteinPolynomial",
    "BlockAutoregressive",
    "MaskedAutoregressive",
    "MixtureGaussianization",
    "MonotoneNetwork",
    "NumericalInverse",
    "Planar",
    "Residual",
    "Sylvester",
    "TransformedCoupling",
}
"""Classes whose inverses are searched for, which takes longer to compile."""


def main() -> None:
    """Checks one entry of each class; prints a line for each failure, and exits with their number.

    With the argument ``exact``, the classes of `COARSER` and `SEARCHED` are left out, and so is the
    comparison with the Jacobian; with ``all`` they aren't. With ``flows`` and ``models``, see
    `check_flows` and `check_models`.

    The variants of a class are told apart in float32.
    """
    if sys.argv[1:] in (["flows"], ["models"]):
        count, failures = check_flows() if sys.argv[1] == "flows" else check_models()
        print(f"{count} {sys.argv[1]}, {failures} failures")
        sys.exit(min(failures, 100))
    failures = 0
    entries, checks = {entry.public: entry for entry in registry.BIJECTORS}.values(), CHECKS
    if "all" not in sys.argv[1:]:
        left_out = {*COARSER, *SEARCHED}
        entries = [entry for entry in entries if entry.public.__name__ not in left_out]
        checks = CHECKS[:2]
    for entry in entries:
        tolerance = COARSER.get(entry.public.__name__, TOLERANCE)
        case = dataclasses.replace(entry.case, tolerance=tolerance)
        for check in checks:
            try:
                assert case.x.dtype == "float64"
                run_check(check, case)
            except AssertionError as error:
                failures += 1
                print(f"{entry.name}: {error}")
    print(f"{len(entries)} classes, {failures} failures")
    sys.exit(min(failures, 100))


def check_flows() -> tuple[int, int]:
    """Checks densities of flows of float64 parameters: round trips, and sampling by evaluating.

    Returns:
      The number of flows, and of failures.
    """
    modules = {repr(entry.module): entry.module for entry in registry.FLOWS if entry.module}
    failures = 0
    for name, flow in modules.items():
        if isinstance(flow, flows.ContinuousFlow | flows.StackedFlow) or flow.num_classes:
            continue
        model = models.FlowModel(flow)
        generator = np.random.default_rng(0)
        data = jnp.asarray(generator.normal(size=(5, *flow.event_shape)), jnp.float32)
        variables = jax.jit(model.init)(jax.random.key(0), data)
        types = {leaf.dtype for leaf in jax.tree.leaves(variables)}
        if types - {jnp.dtype("float32"), jnp.dtype("int8")}:
            failures += 1
            print(f"{name}: parameters of {types}")

        def noisy(leaf: jax.Array, generator: np.random.Generator = generator) -> jax.Array:
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                return leaf
            return leaf.astype(jnp.float64) + 0.05 * generator.normal(size=leaf.shape)

        @jax.jit
        def measured(variables, data, model=model):
            distribution = model.apply(variables)
            sampled = distribution.sample_and_log_prob(seed=jax.random.key(1), sample_shape=5)
            back = distribution.bijector.forward(distribution.bijector.inverse(data))
            return sampled, distribution.log_prob(sampled[0]), back

        data = jnp.asarray(data, jnp.float64)
        (samples, log_prob), evaluated, back = measured(jax.tree.map(noisy, variables), data)
        errors = [
            float(jnp.max(jnp.abs(log_prob - evaluated))),
            float(jnp.max(jnp.abs(back - data))),
        ]
        if samples.dtype != jnp.float64 or not max(errors) <= 1e-10:
            failures += 1
            print(f"{name}: samples of {samples.dtype}, errors {errors}")
    return len(modules), failures


def check_models() -> tuple[int, int]:
    """Traces every stored model: parameters and results are float32, and float64 fits as well.

    Returns:
      The number of models, and of failures.
    """
    failures = 0
    for name, golden in stored_models.MODELS.items():
        parameters = jax.eval_shape(golden.init)
        outputs = jax.eval_shape(functools.partial(golden.outputs, golden.build()), parameters)
        wide = [leaf for leaf in jax.tree.leaves((parameters, outputs)) if leaf.dtype == "float64"]
        if wide:
            failures += 1
            print(f"{name}: {len(wide)} parameters or results of float64")

        def widened(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            dtype = jnp.float64 if leaf.dtype == jnp.float32 else leaf.dtype
            return jax.ShapeDtypeStruct(leaf.shape, dtype)

        jax.eval_shape(
            functools.partial(golden.outputs, golden.build()), jax.tree.map(widened, parameters)
        )
    return len(stored_models.MODELS), failures


if __name__ == "__main__":
    main()
