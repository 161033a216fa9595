"""Distributions that distrax lacks, or has otherwise."""

from vaeflow.distributions.noise import standard_normal
from vaeflow.distributions.transformed import Transformed

__all__ = ["Transformed", "standard_normal"]
