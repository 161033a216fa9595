"""scikit-learn: a flow as a density estimator, in pipelines and searches.

It needs scikit-learn, which the extra ``vaeflow[interop]`` brings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from vaeflow._util.files import optional_import
from vaeflow.fitting import Fitted, fit
from vaeflow.flows import NeuralSplineFlow
from vaeflow.typing import Flow

__all__ = ["FlowDensity"]

_base = optional_import("sklearn.base", "vaeflow.interop.sklearn", "scikit-learn", extra="interop")
_validation = optional_import(
    "sklearn.utils.validation", "vaeflow.interop.sklearn", "scikit-learn", extra="interop"
)


class FlowDensity(_base.DensityMixin, _base.BaseEstimator):
    """A normalizing flow as a density estimator, with the methods of scikit-learn's mixtures.

    ::

        density = FlowDensity(vf.flows.RealNVP, steps=2000).fit(X)
        density.score_samples(X)  # nats, [example]

    Parameters are those of `vaeflow.fit`. Columns are standardised within the model.

    Args:
      flow: Makes the flow from the shape of an example, ``(columns,)``: a class of
        `vaeflow.flows`, or a `functools.partial` of one with options; None for
        `vaeflow.flows.NeuralSplineFlow`.
      steps: See `vaeflow.fit`.
      batch_size: See `vaeflow.fit`.
      learning_rate: See `vaeflow.fit`.
      validation: Share of the examples by which the best step is chosen; see `vaeflow.fit`.
      patience: See `vaeflow.fit`.
      ensemble: See `vaeflow.fit`.
      random_state: Seed, a `numpy.random.RandomState`, or None for a new seed at each fit.

    Attributes:
      fitted_: The fitted model, a `vaeflow.fitting.Fitted`.
      n_features_in_: Number of columns.
      feature_names_in_: Names of the columns, where there are names.
    """

    def __init__(
        self,
        flow: Callable[[tuple[int]], Flow] | None = None,
        *,
        steps: int | None = None,
        batch_size: int = 256,
        learning_rate: float = 3e-3,
        validation: float = 0.1,
        patience: int = 10,
        ensemble: int = 1,
        random_state: Any = None,
    ) -> None:
        self.flow = flow
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation = validation
        self.patience = patience
        self.ensemble = ensemble
        self.random_state = random_state

    def fit(self, X: Float[np.ndarray, "example column"], y: Any = None) -> FlowDensity:
        """Trains the flow.

        Args:
          X: Examples.
          y: Ignored.

        Raises:
          ValueError: If data or parameters don't fit; see `vaeflow.fit`.
        """
        X = _validation.validate_data(self, X, dtype=(np.float64, np.float32), ensure_min_samples=2)
        make = NeuralSplineFlow if self.flow is None else self.flow
        self.fitted_: Fitted = fit(
            make((X.shape[1],)),
            X,
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            validation=self.validation,
            patience=self.patience,
            ensemble=self.ensemble,
            seed=_seed(self.random_state),
        )
        return self

    def score_samples(
        self, X: Float[np.ndarray, "example column"]
    ) -> Float[np.ndarray, " example"]:
        """Computes the log-density of each example in nats."""
        _validation.check_is_fitted(self)
        X = _validation.validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        return self.fitted_.log_prob(X)

    def score(self, X: Float[np.ndarray, "example column"], y: Any = None) -> float:
        """Computes the mean log-density of examples in nats; `y` is ignored."""
        return float(np.mean(self.score_samples(X)))

    def sample(
        self, n_samples: int = 1, random_state: Any = None
    ) -> Float[np.ndarray, "example column"]:
        """Samples examples.

        Args:
          n_samples: Their number.
          random_state: As for the estimator; None for the estimator's.
        """
        _validation.check_is_fitted(self)
        state = self.random_state if random_state is None else random_state
        return self.fitted_.sample(n_samples, seed=_seed(state))


def _seed(random_state: Any) -> int:
    """A seed of JAX from scikit-learn's ways to give one."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if random_state is None:
        return int(np.random.default_rng().integers(2**31 - 1))
    raise ValueError(
        f"random_state must be an integer, a RandomState or None, got {random_state!r}"
    )
