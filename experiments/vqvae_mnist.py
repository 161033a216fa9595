"""Digits as maps of codes: a VQ-VAE, and a PixelSNAIL over its codes that draws digits.

One command trains both, reports a bound on bits/dim and the use of the codes, and draws samples,
reconstructions and the nearest training images. It goes on from any stage; `--stage` does one.
"""

from __future__ import annotations

from typing import Any

from experiments import common, vq_models
from experiments.vq_runs import STAGES, Config, build, functions, run
from vaeflow import data, training

__all__ = ["PRESETS", "Config", "build", "functions", "run"]


def preset(
    yields: str,
    cost: str,
    *,
    source: str = "embedded:digits",
    steps: int = 1200,
    prior_steps: int = 600,
    evaluate_every: int = 200,
    expected: dict[str, common.Expected] | None = None,
    classes: int | None = None,
    **model: Any,
) -> common.Preset:
    """A preset that differs from others in its model, its priors and the numbers of steps."""
    return common.Preset(
        Config(
            data.DataConfig(source),
            vq_models.ModelConfig(**model),
            vq_models.PriorConfig(classes=classes),
            training.TrainConfig(
                steps=steps,
                batch_size=128,
                learning_rate=1e-3,
                schedule="cosine",
                ema_decay=0.0,  # codes are averages of the features of the parameters themselves
                scan_steps=20,
                log_every=20,
                evaluate_every=evaluate_every,
                checkpoint_every=500,
            ),
            training.TrainConfig(
                steps=prior_steps,
                batch_size=64,
                learning_rate=1e-3,
                warmup_steps=100,
                schedule="cosine",
                clip_norm=1.0,
                ema_decay=0.999,
                scan_steps=20,
                log_every=20,
                evaluate_every=evaluate_every,
                checkpoint_every=500,
            ),
        ),
        yields=yields,
        cost=cost,
        expected=expected or {},
    )


PRESETS = {
    "digits": preset(
        "5,000 digits, which are embedded.",
        "7 minutes on 2 CPU cores",
        expected={"bits_per_dim": common.Expected(1.58, "our run, fold 0, seed 0")},
    ),
    "mnist": preset(
        "All of MNIST: --data.source npz:PATH.",
        "an hour on 2 CPU cores",
        source="npz:PATH",
        steps=2500,
        prior_steps=4000,
        evaluate_every=1000,
        expected={
            "bits_per_dim": common.Expected(
                1.415, "our run, 45 minutes, seed 0, with a prior that began at equal codes"
            )
        },
    ),
}

if __name__ == "__main__":
    common.main("vqvae_mnist", PRESETS, run, stages=STAGES)
