"""A conformance kit for bijectors, ours and those of users.

`check_bijector` runs all of it. `CHECKS`, `Case` and `run_check` run one check at a time, for tests
that are parametrised over (bijector, check).
"""

from vaeflow.testing.case import EDGES, Case
from vaeflow.testing.check import CHECKS, check_bijector, run_check

__all__ = ["CHECKS", "EDGES", "Case", "check_bijector", "run_check"]
