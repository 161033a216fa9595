"""An experiment whose batch is divided over devices and hosts, in processes of their own.

Its presets: a loss whose rows are coupled through `axis`, with codes that are averaged over the
whole batch; quantizers that learn from the whole batch; a small Glow; and a MUNIT, two players on
unpaired batches. It leaves `state.npz` next to the report.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import signal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import vaeflow as vf
from experiments import _cli
from tests import munit_game
from vaeflow import training
from vaeflow._util.arrays import row_keys
from vaeflow.data.dataset import array_part
from vaeflow.losses import Aux

CODES, SIZE = 5, 8


@dataclasses.dataclass(frozen=True)
class Config:
    """A run."""

    train: training.TrainConfig
    glow: bool = False
    """Train the Glow."""
    quantizers: bool = False
    """Train the quantizers."""
    munit: bool = False
    """Train the MUNIT."""
    kill_at: tuple[int, ...] = ()
    """Evaluations at which every process kills itself, the first time that it is there."""
    stop_at: tuple[int, ...] = ()
    """The same, with SIGTERM to the last host."""
    other_data: bool = False
    """Train on other images on all hosts but the first."""
    contrary: bool = False
    """Evaluate to the contrary on all hosts but the first."""


def initialize_coupled() -> dict:
    """Parameters of an encoder, codes and the sums that they are the quotients of."""
    first, second = jax.random.split(jax.random.key(1))
    codes = jax.random.normal(second, (CODES, 3))
    return {
        "params": {"kernel": 0.1 * jax.random.normal(first, (SIZE * SIZE, 6))},
        "codes": {"sums": codes, "counts": jnp.ones(CODES)},
    }


def coupled_loss(model, variables, batch, rng, *, axis, train):
    """A total correlation against the whole batch, and distances to moving averages of features."""
    images = batch["image"].reshape(len(batch["image"]), -1) / 255.0 - 0.5
    mean, log_scale = jnp.split(images @ variables["params"]["kernel"], 2, axis=1)
    noise = jax.vmap(lambda key: jax.random.normal(key, (3,)))(row_keys(rng, len(images)))
    sample = mean + jnp.exp(log_scale) * noise
    means, scales = axis.gather((mean, log_scale))
    difference = (sample[:, None] - means) * jnp.exp(-scales)
    log_density = -0.5 * difference**2 - scales
    log_rows = jnp.log(float(means.shape[0]))
    joint = jax.nn.logsumexp(log_density.sum(-1), axis=1) - log_rows
    marginals = jax.nn.logsumexp(log_density, axis=1).sum(-1) - 3 * log_rows
    index = jnp.zeros(means.shape[0]).at[batch["index"] % len(means)].set(1.0)
    codes = variables["codes"]["sums"] / variables["codes"]["counts"][:, None]
    square = jnp.sum((sample[:, None] - jax.lax.stop_gradient(codes)) ** 2, axis=-1)
    nearest = jax.nn.one_hot(jnp.argmin(square, axis=1), CODES)
    counts, sums = axis.sum(jax.lax.stop_gradient((nearest.sum(0), nearest.T @ sample)))
    state = {
        "codes": {
            "counts": 0.9 * variables["codes"]["counts"] + 0.1 * counts,
            "sums": 0.9 * variables["codes"]["sums"] + 0.1 * sums,
        }
    }
    reconstruction = jnp.mean((mean.sum(-1) - images.sum(-1)) ** 2)
    total_correlation = jnp.mean(joint - marginals)
    value = reconstruction + total_correlation + jnp.mean(square.min(1))
    metrics = {"total_correlation": total_correlation, "rows": jnp.mean(index[:1])}
    return value, Aux(metrics, state)


class Quantizing(nn.Module):
    """Features of images, and quantizers whose learning couples the rows."""

    @nn.compact
    def __call__(self, images, rng=None, *, axis=vf.LOCAL, train=False):
        features = nn.Dense(16)(images.reshape(images.shape[0], -1)).reshape(-1, 4, 4)
        average = vf.quantizers.MovingAverage(0.8, restart_below=0.4)
        residual = vf.quantizers.ResidualQuantizer(6, num_stages=2, average=average, dropout=True)
        outputs = [
            quantizer(features, rng, axis=axis, train=train)
            for quantizer in (
                vf.quantizers.VectorQuantizer(6, average=average),
                vf.quantizers.GroupedQuantizer(residual, num_groups=2),
                vf.quantizers.LookupFreeQuantizer(4, 1.0),
            )
        ]
        joined = jnp.concatenate([part.values for part in outputs], axis=-1)
        return nn.Dense(images.shape[-1])(joined.reshape(images.shape[0], -1)), outputs


def quantizing_loss(model, variables, batch, rng, *, axis, train):
    """Squared errors of images behind codes, and all losses of the quantizers."""
    images = batch["image"].reshape(len(batch["image"]), -1) / 255.0 - 0.5
    (output, outputs), state = model.apply(
        variables, images, rng, axis=axis, train=train, mutable=["codebook"]
    )
    error = jnp.mean((output - images) ** 2)
    codes = sum(jnp.mean(loss) for part in outputs for loss in part.losses.values())
    return error + 0.1 * codes, Aux({"error": error}, state)


def source_of(images: np.ndarray) -> vf.data.Source:
    """A split of these images."""
    return vf.data.Source(array_part(images, None).read, np.arange(len(images)))


def run(config: Config, directory: training.RunDirectory) -> _cli.Result:
    """Trains, and leaves the state behind."""
    train = config.train
    images = np.random.default_rng(0).integers(0, 256, (48, SIZE, SIZE, 1), dtype=np.uint8)
    if config.other_data and jax.process_index() > 0:
        images = 255 - images
    batches = training.Batches(source_of(images), train.batch_size, train.seed, flip=True)
    optimizer = training.make_optimizer(train)
    if config.munit:
        model, initialize = munit_game.GAME, munit_game.initialize
        loss = {
            "discriminator": vf.losses.munit_discriminator,
            "generator": functools.partial(vf.losses.munit, cycle=1.0),
        }
        optimizer = {player: training.make_optimizer(train, (0.5, 0.999)) for player in loss}
        sources = (source_of(munit_game.images(shape, 48)) for shape in munit_game.SHAPES.values())
        batches = training.UnpairedBatches(*sources, train.batch_size, train.seed, flip=True)
    elif config.glow:
        flow = vf.flows.Glow((SIZE, SIZE, 1), num_levels=2, num_steps=2, hidden_features=8)
        model = vf.models.FlowModel(flow, vf.models.UniformDequantizer())
        loss = vf.losses.negative_log_likelihood
        initialize = functools.partial(jax.jit(model.init), jax.random.key(0), images)
    elif config.quantizers:
        model, loss = Quantizing(), quantizing_loss
        first = images.reshape(len(images), -1) / 255.0 - 0.5
        initialize = functools.partial(jax.jit(model.init), jax.random.key(0), first)
    else:
        model, loss, initialize = None, coupled_loss, initialize_coupled

    def evaluate(step: int, variables) -> dict[str, float]:
        host, hosts = jax.process_index(), jax.process_count()
        mark = directory.path / f"mark-{step}-{host}"
        if step in config.kill_at + config.stop_at and not mark.exists():
            mark.touch()
            if step in config.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            elif host == hosts - 1:
                os.kill(os.getpid(), signal.SIGTERM)
        sign = -1.0 if config.contrary and host > 0 else 1.0
        return {"size": sign * float(optax.tree.norm(variables["params"]))}

    fitted = training.train(
        model,
        loss,
        batches,
        train,
        directory,
        optimizers=optimizer,
        initialize=initialize,
        evaluate=evaluate,
        best="size",
    )
    leaves, _ = jax.tree.flatten_with_path(jax.device_get(fitted.state))
    if training.is_first():
        arrays = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
        np.savez(directory.path / "state.npz", **arrays)
    counts = {"devices": float(jax.device_count()), "hosts": float(jax.process_count())}
    return _cli.Result(fitted.step, fitted.metrics | counts)


TRAIN = training.TrainConfig(
    steps=20,
    batch_size=16,
    learning_rate=0.01,
    ema_decay=0.9,
    log_every=1,
    evaluate_every=5,
    checkpoint_every=4,
)
PRESETS = {
    "coupled": _cli.Preset(Config(TRAIN), yields="Codes.", cost="seconds"),
    "quantizers": _cli.Preset(Config(TRAIN, quantizers=True), yields="Quantizers.", cost="seconds"),
    "glow": _cli.Preset(Config(TRAIN, glow=True), yields="A Glow.", cost="seconds"),
    # Faster, players that follow each other would make much of how sums are rounded.
    "munit": _cli.Preset(
        Config(dataclasses.replace(TRAIN, learning_rate=1e-4), munit=True),
        yields="A MUNIT.",
        cost="seconds",
    ),
}

if __name__ == "__main__":
    _cli.main("divided", PRESETS, run)
