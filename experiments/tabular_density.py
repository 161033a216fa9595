"""Flows as densities of tables.

Trains a flow on the rows of a table by maximum likelihood with early stopping, and reports the test
log-likelihood in nats, in the units of the file, with published figures or plain baselines
(Papamakarios, Pavlakou & Murray 2017, "Masked Autoregressive Flow for Density Estimation"; Durkan,
Bekasov, Murray & Papamakarios 2019, "Neural Spline Flows").
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

import vaeflow as vf
from experiments import _cli, _figures
from experiments._evaluation import measure
from vaeflow import data, metrics, plotting, training

PyTree = Any
FlowName = Literal["spline-autoregressive", "spline-coupling", "maf", "real-nvp"]

VALIDATION = "validation_negative_log_likelihood"
"""The metric by which the best step is chosen."""

FIRST_ROWS = 16_384
"""Rows, spread evenly over the training split, from which a flow is initialised."""

BATCH = 1024
"""Rows that are measured at once."""

PLOTTED_COLUMNS = 5
"""Columns in the figure of pairs."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Which flow."""

    flow: FlowName = "spline-autoregressive"
    """Rational-quadratic splines, autoregressive or in couplings; a masked autoregressive flow; or
    affine couplings."""
    steps: int = 10
    """Steps of the flow."""
    width: int = 64
    """Units of each hidden layer of the networks."""
    blocks: int = 2
    """Hidden layers of the networks."""
    bins: int = 8
    """Bins of a spline."""
    bound: float = 4.0
    """Upper end of the interval that splines transform, and minus its lower end, in standard
    deviations."""

    def __post_init__(self) -> None:
        _cli.check_least(self, "model.", steps=1, width=1, blocks=1, bins=1)
        _cli.check(self.bound > 0, f"model.bound must be above 0, got {self.bound}")


@dataclasses.dataclass(frozen=True)
class Config:
    """A run."""

    data: data.TableConfig
    model: ModelConfig
    train: training.TrainConfig
    baselines: bool = True
    """Fit Gaussians to the same split, for comparison."""


SOURCES = {
    "": "RQ-NSF (AR), Durkan et al. 2019, table 1",
    "rq_nsf_c": "RQ-NSF (C), Durkan et al. 2019, table 1",
    "naf": "NAF, Huang et al. 2018",
    "ffjord": "FFJORD, Grathwohl et al. 2019, table 2",
    "maf": "MAF (10), Papamakarios et al. 2017, table 1",
    "real_nvp": "RealNVP (10), Papamakarios et al. 2017, table 1",
}
"""Where published figures come from, by the end of the metric's name."""


def published(
    name: str,
    columns: int,
    figures: tuple[float, ...],
    *,
    width: int,
    bins: int,
    batch_size: int,
    steps: int = 400_000,
    learning_rate: float = 5e-4,
) -> _cli.Preset:
    """Makes a preset for a table with published figures, those of `SOURCES` in their order."""
    train = training.TrainConfig(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        schedule="cosine",
        clip_norm=5.0,
        scan_steps=100,
        log_every=100,
        evaluate_every=4000,
        patience=15,
        checkpoint_every=4000,
    )
    return _cli.Preset(
        Config(
            data.TableConfig(f"npz:{name}.npz"),
            ModelConfig("spline-autoregressive", steps=10, width=width, bins=bins, bound=3.0),
            train,
        ),
        yields=(
            f"{name.upper()} as preprocessed by Papamakarios et al. 2017, {columns} columns, from "
            "--data.source npz:PATH; about the published size of RQ-NSF (AR), without its dropout "
            "and residual connections."
        ),
        cost="hours on an accelerator; not run by us",
        expected={
            f"test_log_likelihood_{end}".rstrip("_"): _cli.Expected(
                *(figure, f"{source}, by a secondary source"),
                (f"npz:{name}.npz", f"npz:*/{name}.npz"),
            )
            for (end, source), figure in zip(SOURCES.items(), figures, strict=True)
        },
    )


PRESETS = {
    "nuclei": _cli.Preset(
        Config(
            data.TableConfig("embedded:nuclei"),
            # So few rows are soon learned by heart: few bins, strong weight decay and the choice of
            # the best step on validation generalise.
            ModelConfig("spline-coupling", steps=4, width=32, bins=4),
            training.TrainConfig(
                steps=4000,
                batch_size=64,
                learning_rate=5e-4,
                warmup_steps=50,
                schedule="cosine",
                clip_norm=5.0,
                weight_decay=10.0,
                scan_steps=50,
                evaluate_every=50,
                patience=10,
                checkpoint_every=500,
            ),
        ),
        yields="20 measurements of cell nuclei in 569 tumours, shipped with the dependencies.",
        cost="about a minute on 2 CPU cores",
        expected={"test_log_likelihood": _cli.Expected(34.4, "our run, fold 0, seed 0")},
    ),
    "power": published(
        "power", 6, (0.66, 0.64, 0.62, 0.46, 0.24, 0.17), width=256, bins=8, batch_size=512
    ),
    "gas": published(
        "gas", 8, (13.09, 13.09, 11.96, 8.59, 10.08, 8.33), width=256, bins=8, batch_size=512
    ),
    "hepmass": published(
        "hepmass",
        21,
        (-14.01, -14.75, -15.09, -14.92, -17.73, -18.71),
        width=128,
        bins=8,
        batch_size=256,
    ),
    "miniboone": published(
        "miniboone",
        43,
        (-9.22, -9.67, -8.86, -10.43, -12.24, -13.84),
        width=32,
        bins=4,
        batch_size=128,
        steps=200_000,
        learning_rate=3e-4,
    ),
    "bsds300": published(
        "bsds300",
        63,
        (157.31, 157.54, 157.73, 157.40, 154.93, 153.28),
        width=128,
        bins=8,
        batch_size=512,
    ),
}


# As in all runs so far: with tighter bounds, those with larger scales would have other densities.
LOG_SCALE = vf.bijectors.BoundedLogScale(-math.inf, math.inf)


def build(config: Config, shape: tuple[int]) -> vf.models.FlowModel:
    """Builds the model for rows of a shape."""
    model = config.model
    hidden_sizes = (model.width,) * model.blocks
    if model.flow == "maf":
        flow = vf.flows.MaskedAutoregressiveFlow(
            shape,
            num_steps=model.steps,
            transformer=vf.bijectors.AffineTransformer(LOG_SCALE),
            hidden_sizes=hidden_sizes,
        )
    elif model.flow == "real-nvp":
        flow = vf.flows.RealNVP(
            shape,
            num_steps=model.steps,
            hidden_features=model.width,
            num_blocks=model.blocks,
            log_scale=LOG_SCALE,
        )
    else:
        flow = vf.flows.NeuralSplineFlow(
            shape,
            num_steps=model.steps,
            hidden_sizes=hidden_sizes,
            num_bins=model.bins,
            bound=model.bound,
            autoregressive=model.flow == "spline-autoregressive",
        )
    return vf.models.FlowModel(vf.flows.StandardizedFlow(flow, learned=False))


@functools.partial(jax.jit, static_argnums=0)
def log_prob(model: vf.models.FlowModel, variables: PyTree, batch: PyTree) -> jax.Array:
    """Computes the log-likelihood of each row in nats, in the units of its file."""
    return model.apply(variables, batch["vector"], method="log_prob")


@functools.partial(jax.jit, static_argnums=0)
def round_trip_error(model: vf.models.FlowModel, variables: PyTree, rows: jax.Array) -> jax.Array:
    """Computes the largest change, in deviations of its column, on the way to noise and back."""
    noise = model.apply(variables, rows, method="encode")
    back = model.apply(variables, noise, method="decode")
    scale = jnp.exp(variables["constants"]["flow"]["log_scale"])
    return jnp.max(jnp.abs(back - rows) / scale)


def log_probs(
    model: vf.models.FlowModel,
    variables: PyTree,
    source: data.Source,
    title: str = "",
    batch_size: int = BATCH,
) -> np.ndarray:
    """Computes the log-likelihood of each row of a split."""
    return measure(functools.partial(log_prob, model), variables, source, title, batch_size)


def baselines(table: data.Table) -> dict[str, float]:
    """Test log-likelihoods of Gaussians fitted to the same training rows."""
    train, validation, test = (
        data.stack(split)["vector"] for split in (table.train, table.validation, table.test)
    )
    fits = {
        "diagonal_gaussian": metrics.fit_diagonal_gaussian,
        "shrunk_gaussian": metrics.fit_shrunk_gaussian,
    }
    return {
        f"test_log_likelihood_{name}": float(np.mean(fit(train, validation).log_prob(test)))
        for name, fit in fits.items()
    }


def make_figures(
    model: vf.models.FlowModel,
    variables: PyTree,
    table: data.Table,
    directory: training.RunDirectory,
    fitted: Mapping[str, float],
) -> _figures.Named:
    """Yields the training curve, with the baselines, and pairs of columns of data and samples."""
    prefix = "test_log_likelihood_"
    expected = {
        _figures.title_of(name.removeprefix(prefix)): -value for name, value in fitted.items()
    }
    label, metric = "negative log-likelihood, nats", "negative_log_likelihood"
    yield (
        "training_curve",
        _figures.training_curve(directory, metric, label, VALIDATION, expected),
    )
    labels = table.columns[:PLOTTED_COLUMNS]
    if len(labels) > 1:
        rows = data.stack(table.train, 2000)["vector"]
        samples = _figures.sample(model, variables, jax.random.key(1), len(rows))
        plotted = (values[:, : len(labels)] for values in (rows, samples))
        yield "pairs", plotting.pairwise_marginals(*plotted, labels)


def run(config: Config, directory: training.RunDirectory) -> _cli.Result:
    """Trains, measures and plots."""
    table = data.open_table(config.data)
    print(table)
    model = build(config, table.shape)
    train = config.train
    spread = np.linspace(0, len(table.train) - 1, min(len(table.train), FIRST_ROWS)).astype(int)
    first = table.train.gather(spread)["vector"]

    def evaluate(step: int, variables) -> dict[str, float]:
        return {VALIDATION: -np.mean(log_probs(model, variables, table.validation))}

    fitted = training.train(
        model,
        functools.partial(vf.losses.negative_log_likelihood, data="vector"),
        training.Batches(table.train, train.batch_size, train.seed),
        train,
        directory,
        initialize=lambda: jax.jit(model.init)(jax.random.key(train.seed), first),
        evaluate=evaluate,
        best=VALIDATION,
    )
    variables = fitted.variables
    directory.write_model(variables, table.shape)
    test = log_probs(model, variables, table.test, "test rows")
    train_mean = np.mean(log_probs(model, variables, table.train, "training rows"))
    results = {
        "test_log_likelihood": np.mean(test),
        "test_log_likelihood_two_standard_errors": 2 * np.std(test, ddof=1) / np.sqrt(len(test)),
        "validation_log_likelihood": -fitted.metrics[VALIDATION],
        "train_log_likelihood": train_mean,
        "round_trip_error": float(round_trip_error(model, variables, first[:256])),
    }
    if not results["round_trip_error"] <= 1e-3:
        _cli.announce(f"warning: round trip error {results['round_trip_error']:.2g} is above 0.001")
    plain = baselines(table) if config.baselines else {}
    if training.is_first():
        _figures.save_all(directory, make_figures(model, variables, table, directory, plain))
    return _cli.Result(fitted.step, results | plain)


if __name__ == "__main__":
    _cli.main("tabular_density", PRESETS, run)
