"""Variational auto-encoders and normalizing flows as pure functions in JAX."""

from vaeflow import bijectors

__all__ = ["bijectors"]
