"""A conformance kit for bijectors: checks of values, gradients, transformations and errors.

`check_bijector` runs all of them. `CHECKS`, `Case` and `run_check` run one check at a time, for
tests that are parametrised over (bijector, check).
"""

from vaeflow.testing.case import EDGES, Case
from vaeflow.testing.check import CHECKS, check_bijector, run_check

__all__ = ["CHECKS", "EDGES", "Case", "check_bijector", "run_check"]
