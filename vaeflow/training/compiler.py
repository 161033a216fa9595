"""What the compiler is asked for beyond its defaults."""

from __future__ import annotations

import functools

import jax

CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}
"""By default jaxlib 0.10 hands matrix products to YNNPACK, which keeps one core busy; its own
kernels use all. A step of a masked flow of 100 hidden units takes 0.8 of the time with them."""


@functools.cache
def compiler_options(platform: str) -> dict[str, str | bool]:
    """Options of the compiler for a training step on a platform; results differ in rounding alone.

    Options belong to a version of the compiler: where it doesn't know one, it is left out.

    Args:
      platform: That of the devices: "cpu", "gpu" or "tpu".
    """
    if platform != "cpu":
        return {}
    try:
        jax.jit(lambda x: x, compiler_options=CPU_OPTIONS).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return CPU_OPTIONS
