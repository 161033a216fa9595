"""scikit-learn: the estimator passes its own checks, and works in pipelines and searches."""

from __future__ import annotations

import functools
import unittest

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import vaeflow as vf
from vaeflow.interop.sklearn import FlowDensity

SMALL = functools.partial(vf.flows.MaskedAutoregressiveFlow, num_steps=1, hidden_sizes=(8,))
QUICK = {"steps": 30, "learning_rate": 1e-2, "random_state": 0}


def rows(count=200, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(count, 2)) @ np.array([[1.0, 0.5], [0.0, 2.0]]) + 3.0


@pytest.fixture(scope="module")
def density():
    return FlowDensity(SMALL, **QUICK).fit(rows())


def test_scores_are_nats_of_the_fitted_model(density):
    scores = density.score_samples(rows(20, 1))
    np.testing.assert_array_equal(scores, density.fitted_.log_prob(rows(20, 1)))
    assert density.score(rows(20, 1)) == pytest.approx(scores.mean())
    assert density.n_features_in_ == 2
    sample = density.sample(50)
    assert sample.shape == (50, 2)
    np.testing.assert_array_equal(density.sample(50, random_state=0), sample)
    assert not np.array_equal(density.sample(50, random_state=1), sample)


def test_parameters_are_those_of_the_constructor(density):
    parameters = density.get_params()
    assert parameters["flow"] is SMALL
    assert parameters["steps"] == 30
    copy = clone(density).set_params(steps=2)
    assert copy.steps == 2
    assert not hasattr(copy, "fitted_")
    with pytest.raises(ValueError, match="random_state must be an integer"):
        FlowDensity(SMALL, steps=2, random_state="x").fit(rows())


@pytest.mark.slow
def test_checks_of_estimators():
    """Those of scikit-learn itself, on its own data, but for arrays of other libraries."""
    estimator = FlowDensity(SMALL, steps=2, random_state=0)
    names, skipped = [], set()
    for subject, check in estimator_checks_generator(estimator):
        names.append(check.func.__name__)
        try:
            check(subject)
        except unittest.SkipTest:
            skipped.add(check.func.__name__)
    assert len(set(names)) > 30
    assert skipped <= {"check_array_api_input"}
    assert {"check_estimators_pickle", "check_fit_idempotent", "check_n_features_in"} <= set(names)


@pytest.mark.slow
def test_a_pipeline_and_a_search():
    pipeline = make_pipeline(StandardScaler(), FlowDensity(SMALL, **QUICK)).fit(rows())
    assert np.isfinite(pipeline.score_samples(rows(9, 1))).all()
    steps = {"steps": [1, 60]}
    search = GridSearchCV(FlowDensity(SMALL, **QUICK), steps, cv=2).fit(rows())
    assert search.best_params_ == {"steps": 60}
