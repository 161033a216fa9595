"""Variational auto-encoders of grey faces: their manifold, and bits/dim.

Faces keep their 256 levels, of which the decoder gives probabilities: logistic distributions
integrated over each level. Bits/dim are by importance sampling, so they can be held against those
of flows.
"""

from __future__ import annotations

from typing import Any

from experiments import common, latent_models
from experiments.latent_objectives import ObjectiveConfig
from experiments.latent_runs import Config, build, functions, run
from vaeflow import data, training

__all__ = ["PRESETS", "Config", "build", "functions", "run"]

FREY = "the Frey faces, 1,965 of 28x20, which aren't shipped: --data.source npz:PATH"


def preset(
    yields: str,
    cost: str,
    source: str,
    train: dict[str, Any],
    importance_samples: int = 5000,
    flip: bool = False,
    **model: Any,
) -> common.Preset:
    """A preset that differs from others in its data, its model and its training."""
    settings = {
        "schedule": "cosine",
        "learning_rate": 1e-3,
        "scan_steps": 100,
        "log_every": 100,
        "checkpoint_every": 1000,
    }
    return common.Preset(
        Config(
            data.DataConfig(source, flip=flip),
            latent_models.ModelConfig(likelihood="discretized-logistic", **model),
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
        "embedded:faces",
        # So few are soon learned by heart; what generalises is chosen on validation.
        {
            "steps": 2000,
            "batch_size": 20,
            "learning_rate": 2e-3,
            "weight_decay": 1.0,
            "evaluate_every": 100,
            "patience": 5,
        },
        flip=True,
        latents=2,
    ),
    "frey": preset(
        f"The manifold of two latents of {FREY}.",
        "5 minutes on 2 CPU cores",
        "npz:PATH",
        {"steps": 20_000, "batch_size": 100, "evaluate_every": 2000},
        latents=2,
    ),
    "frey-gated": preset(
        f"Gated convolutions and 64 latents for {FREY}.",
        "an hour on 2 CPU cores",
        "npz:PATH",
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
    common.main("vae_faces", PRESETS, run)
