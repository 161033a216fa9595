"""Digits in a category and a style: a hierarchically factorised variational auto-encoder."""

from __future__ import annotations

from experiments import common, hfvae
from experiments.hfvae import Config, build, functions, run

__all__ = ["PRESETS", "Config", "build", "functions", "run"]

DATA = "embedded:digits"
MORE = "5,000 digits are embedded; --data.source npz:PATH takes all of MNIST."

PRESETS = {
    "led": hfvae.preset(f"A category that is led. {MORE}", DATA, led=True, cost="x"),
    "published": hfvae.preset(f"Published. {MORE}", DATA, led=False, cost="x"),
}

if __name__ == "__main__":
    common.main("hfvae_mnist", PRESETS, run)
