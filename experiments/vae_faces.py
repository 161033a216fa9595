"""Variational auto-encoders of grey faces: their manifold, and bits/dim.

Faces keep their 256 intensities, of which the decoder gives probabilities: logistic distributions
integrated over each. Bits/dim are by importance sampling, so that they compare with those of flows.
Model and run are those of `experiments.vae_mnist`.
"""

from __future__ import annotations

from typing import Any

from experiments import _cli
from experiments.vae_mnist import Config, ModelConfig, ObjectiveConfig, build, run
from vaeflow import data, training

__all__ = ["PRESETS", "Config", "build", "run"]

FREY = "the Frey faces, 1,965 of 28x20, which aren't shipped: --data.source npz:PATH"


def preset(
    yields: str,
    cost: str,
    source: data.DataConfig,
    train: dict[str, Any],
    importance_samples: int = 5000,
    **model: Any,
) -> _cli.Preset:
    """Makes a preset from its data, its model and its training."""
    settings = {
        "schedule": "cosine",
        "learning_rate": 1e-3,
        "scan_steps": 100,
        "log_every": 100,
        "checkpoint_every": 1000,
    }
    return _cli.Preset(
        Config(
            source,
            ModelConfig(likelihood="discretized-logistic", **model),
            ObjectiveConfig("elbo"),
            training.TrainConfig(**{**settings, **train}),
            importance_samples,
        ),
        yields=yields,
        cost=cost,
    )


PRESETS = {
    "faces": preset(
        "The manifold of two latents of 80 real faces, shipped with the dependencies.",
        "a minute on 2 CPU cores",
        data.DataConfig("embedded:faces", flip=True),
        # So few are soon learned by heart; the best step on validation generalises.
        {
            "steps": 2000,
            "batch_size": 20,
            "learning_rate": 2e-3,
            "weight_decay": 1.0,
            "evaluate_every": 100,
            "patience": 5,
        },
        latents=2,
    ),
    "frey": preset(
        f"The manifold of two latents of {FREY}.",
        "5 minutes on 2 CPU cores",
        data.DataConfig("npz:PATH"),
        {"steps": 20_000, "batch_size": 100, "evaluate_every": 2000},
        latents=2,
    ),
    "frey-gated": preset(
        f"Gated convolutions and 64 latents for {FREY}.",
        "an hour on 2 CPU cores",
        data.DataConfig("npz:PATH"),
        {
            "steps": 10_000,
            "batch_size": 100,
            "evaluate_every": 500,
            "patience": 5,
            "scan_steps": 20,
        },
        importance_samples=500,
        network="gated",
        latents=64,
    ),
}

if __name__ == "__main__":
    _cli.main("vae_faces", PRESETS, run)
