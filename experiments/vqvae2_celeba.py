"""Faces as two maps of codes: a VQ-VAE-2, and priors over its codes that sample faces.

The top map, of half the height and width of the bottom one, captures long-range structure; its
prior is a PixelSNAIL, that of the bottom a gated PixelCNN given the top. Model, stages and figures
are those of `experiments.vqvae_mnist`, with reconstructions by level.
"""

from __future__ import annotations

from experiments import _cli
from experiments.vqvae_mnist import (
    LATER,
    STAGES,
    Config,
    ModelConfig,
    PriorConfig,
    build,
    run,
)
from vaeflow import data, training

__all__ = ["LATER", "PRESETS", "STAGES", "Config", "build", "run"]


def large(
    yields: str,
    cost: str,
    source: data.DataConfig,
    prior: PriorConfig,
    *,
    steps: int,
    batch_size: int,
) -> _cli.Preset:
    """Makes a preset for many images; `steps` and `batch_size` are those of the priors."""
    slow = {
        "learning_rate": 3e-4,
        "evaluate_every": 10_000,
        "checkpoint_every": 5000,
        "log_every": 100,
    }
    return _cli.Preset(
        Config(
            source,
            ModelConfig(levels=2, channels=(128, 128), hidden=64),
            prior,
            training.TrainConfig(steps=250_000, batch_size=128, ema_decay=0.0, **slow),
            training.TrainConfig(
                steps=steps,
                batch_size=batch_size,
                warmup_steps=2000,
                schedule="cosine",
                clip_norm=1.0,
                ema_decay=0.9999,
                **slow,
            ),
        ),
        yields=yields,
        cost=cost,
    )


PRESETS = {
    "faces": _cli.Preset(
        Config(
            data.DataConfig("embedded:faces", flip=True),
            # So few faces are soon learned by heart: narrow networks, strong weight decay and the
            # choice of the best step on validation generalise.
            ModelConfig(
                levels=2,
                channels=(32,),
                blocks=1,
                hidden=16,
                codes=64,
                latents=32,
                commitment=5.0,
            ),
            PriorConfig(channels=48, blocks=1, residuals=2, lower_blocks=4, dropout=0.5),
            training.TrainConfig(
                steps=2000,
                batch_size=20,
                learning_rate=2e-3,
                schedule="cosine",
                weight_decay=1.0,
                ema_decay=0.0,  # codes are averages of the features of the parameters themselves
                scan_steps=100,
                log_every=20,
                evaluate_every=200,
            ),
            training.TrainConfig(
                steps=1000,
                batch_size=40,
                learning_rate=1e-3,
                warmup_steps=50,
                schedule="cosine",
                clip_norm=1.0,
                weight_decay=1.0,
                ema_decay=0.98,
                scan_steps=25,
                evaluate_every=25,
                patience=4,
                checkpoint_every=100,
            ),
        ),
        yields="100 real faces of 24x24 grey pixels, shipped with the dependencies: maps of 6x6 "
        "and 12x12 codes.",
        cost="5 minutes on 2 CPU cores",
        expected={"bits_per_dim": _cli.Expected(6.77, "our run, fold 0, seed 0")},
    ),
    "celeba-64": large(
        "CelebA at 64x64, maps of 8x8 and 16x16 codes.",
        "days on an accelerator; not run by us",
        data.DataConfig("tfds:celeb_a", image_size=64, crop="celeba", flip=True),
        PriorConfig(channels=256, blocks=4, residuals=4, lower_blocks=16),
        steps=500_000,
        batch_size=256,
    ),
    "ffhq-256": large(
        "Faces of 256x256, such as FFHQ, from a folder of image files: maps of 32x32 and 64x64 "
        "codes, sizes as in VQ-VAE-2 by a secondary source.",
        "weeks on several accelerators; not run by us",
        data.DataConfig("folder:PATH", image_size=256, flip=True),
        PriorConfig(channels=512, blocks=4, residuals=5, lower_blocks=20),
        steps=1_000_000,
        batch_size=512,
    ),
}

if __name__ == "__main__":
    _cli.main("vqvae2_celeba", PRESETS, run, stages=STAGES, later=LATER)
