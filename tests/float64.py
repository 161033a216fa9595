"""Checks bijectors in float64, in a process of their own: ``python -m tests.float64``."""

from __future__ import annotations

import dataclasses
import sys

import jax

jax.config.update("jax_enable_x64", True)

from tests import registry  # noqa: E402
from vaeflow.testing import run_check  # noqa: E402

CHECKS = ("round trip", "log-det symmetry", "log-det")
TOLERANCE = 1e-9
COARSER = {
    # Their inverse is found by a search, to a residual of 1e-6.
    "BernsteinPolynomial": 2e-5,
    "BlockAutoregressive": 2e-5,
    # It is solved to 1e-5 a step.
    "Continuous": 1e-4,
    "MixtureGaussianization": 2e-5,
    "MonotoneNetwork": 2e-5,
    "NumericalInverse": 2e-5,
    "Planar": 2e-5,
    "Residual": 2e-5,
    "Sylvester": 2e-5,
    "TransformedCoupling": 2e-5,
    # Its networks compute in float32, and in another order on the way back.
    "MaskedAutoregressive": 2e-5,
}
"""Tolerances that are wider."""


def main() -> None:
    """Checks one entry of each class; prints a line for each failure, and exits with their number.

    Without the argument ``all``, the classes of `COARSER` are left out, as float32 reaches their
    tolerance, and so is the comparison with the Jacobian.

    The variants of a class are told apart in float32.
    """
    failures = 0
    entries, checks = {entry.public: entry for entry in registry.BIJECTORS}.values(), CHECKS
    if "all" not in sys.argv[1:]:
        entries = [entry for entry in entries if entry.public.__name__ not in COARSER]
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


if __name__ == "__main__":
    main()
