"""Variational auto-encoders of digits: posteriors, priors and bounds under one protocol.

Trains on digits binarised anew at every step, reports the log-likelihood of the test digits by
importance sampling, how many latents are used and, for a mixture, how well its clusters agree with
the labels; draws samples, reconstructions, interpolations, traversals and the latents of the data.
"""

from __future__ import annotations

from typing import Any

from experiments import common, latent_models
from experiments.latent_objectives import ObjectiveConfig
from experiments.latent_runs import Config, build, functions, run
from vaeflow import data, training

__all__ = ["PRESETS", "Config", "build", "functions", "run"]


NATS = "negative_log_likelihood"


def preset(
    yields: str,
    *,
    bound: str = "elbo",
    samples: int = 1,
    beta: float = 1.0,
    warmup: float = 0.0,
    steps: int = 20_000,
    cost: str = "5 minutes on 2 CPU cores",
    published: float | None = None,
    **model: Any,
) -> common.Preset:
    """A preset that differs from others in its model and its bound.

    What is published is the negative log-likelihood of all of MNIST after 3,280 epochs.
    """
    source = "Burda et al. 2016, table 1: all of MNIST, 3,280 epochs"
    expected = {} if published is None else {NATS: common.Expected(published, source)}
    train = training.TrainConfig(
        steps=steps,
        batch_size=100,
        learning_rate=2e-3,
        schedule="cosine",
        clip_norm=100.0,  # twice the usual; without it, posteriors of planar maps once diverged
        ema_decay=0.999,
        scan_steps=200,
        log_every=100,
        evaluate_every=2000,
        checkpoint_every=2000,
    )
    return common.Preset(
        Config(
            data.DataConfig("embedded:digits"),
            latent_models.ModelConfig(**model),
            ObjectiveConfig(bound, samples, beta, warmup),
            train,
        ),
        yields=f"{yields}. 5,000 digits are embedded; --data.source npz:PATH takes all of MNIST.",
        cost=cost,
        expected=expected,
    )


PRESETS = {
    "vae": preset("A variational auto-encoder with a diagonal posterior", published=86.76),
    "beta": preset("The same with four times the KL", beta=4.0),
    "iwae": preset(
        "The importance-weighted bound of 50 samples",
        bound="importance-weighted",
        samples=50,
        cost="an hour on 2 CPU cores",
        published=84.78,
    ),
    "dreg": preset(
        "The same with the doubly reparameterised gradient",
        bound="doubly-reparameterized",
        samples=50,
        cost="an hour on 2 CPU cores",
    ),
    "planar": preset("A posterior of 16 planar maps", posterior="planar"),
    "sylvester": preset(
        "A posterior of 4 Sylvester maps", posterior="sylvester", posterior_steps=4
    ),
    "iaf": preset(
        "A posterior of 4 inverse autoregressive maps", posterior="iaf", posterior_steps=4
    ),
    "vamp": preset("A prior made of the posteriors of 500 pseudo-inputs", prior="vamp"),
    "mixture": preset(  # without warm-up all latents begin, and stay, in one cluster
        "A prior that is a mixture of Gaussians", prior="mixture", components=10, warmup=0.5
    ),
    "flow-prior": preset("A prior that is a flow", prior="flow"),
    "ae": preset(
        "An auto-encoder, then the same networks as a variational one: samples of both",
        posterior="none",
        latents=20,
        cost="8 minutes on 2 CPU cores",
    ),
    "manifold": preset("A variational auto-encoder with two latents, which are drawn", latents=2),
    "autoregressive-prior": preset(
        "A prior in which each latent is a Gaussian given those before it", prior="autoregressive"
    ),
    "hierarchical": preset("A ladder of two levels of latents", levels=(50, 20)),
    "conditional": preset("Encoder and decoder that are given the labels", classes=10),
}

if __name__ == "__main__":
    common.main("vae_mnist", PRESETS, run)
