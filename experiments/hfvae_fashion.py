"""Clothes in a category and a style: a hierarchically factorised variational auto-encoder."""

from __future__ import annotations

from experiments import common, hfvae
from experiments.hfvae import Config, build, functions, run

__all__ = ["PRESETS", "Config", "build", "functions", "run"]

DATA = "idx:/usr/share/datasets/fashion-mnist"

PRESETS = {
    "led": hfvae.preset("x", DATA, led=True, cost="x"),
    "published": hfvae.preset("x", DATA, led=False, cost="x"),
}

if __name__ == "__main__":
    common.main("hfvae_fashion", PRESETS, run)
