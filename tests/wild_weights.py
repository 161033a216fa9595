"""Default flows with noise of 0.1 on every parameter, as an optimiser gone astray may leave them.

``python -m tests.wild_weights`` measures their round trips in float64, in a process of its own.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.variables import noisy
from vaeflow import flows, models

NOISE = 0.1
ROWS = 128
SEEDS = 12


@dataclasses.dataclass(frozen=True)
class Wild:
    """A flow of four entries, of its default size.

    Attributes:
      flow: The flow.
      residual: Largest residual of both round trips in float32; infinite where four steps may move
        a rounding error by more than the inverse of float32's precision.
      residual_float64: Largest residual in float64 with networks in float64, or None where it isn't
        measured, as float32 shows the same.
      both: Whether this holds from data to noise and back as well as from noise to data and back.
    """

    flow: Any
    residual: float = float("inf")
    residual_float64: float | None = None
    both: bool = True


FLOWS = {
    "nice": Wild(flows.NICE((4,)), 1e-4),
    "real-nvp": Wild(flows.RealNVP((4,)), 1.0, 1e-6),
    "masked": Wild(flows.MaskedAutoregressiveFlow((4,)), residual_float64=1e-4),
    "inverse": Wild(flows.InverseAutoregressiveFlow((4,)), residual_float64=1e-4),
    # Splines contract by up to a thousand a step, where the data have gaps: in float64, four steps
    # of that can be undone on the way to the data alone.
    "spline": Wild(flows.NeuralSplineFlow((4,)), residual_float64=1e-3),
    "spline-autoregressive": Wild(
        flows.NeuralSplineFlow((4,), autoregressive=True), residual_float64=1e-3, both=False
    ),
    # Shifts of 16 steps add up to 1e20 here, in whose rounding any noise is lost.
    "glow": Wild(flows.Glow((2, 2, 1), num_levels=1)),
    "block-autoregressive": Wild(flows.BlockAutoregressiveFlow((4,)), 1e-3),
    "continuous": Wild(flows.ContinuousFlow((4,)), 2e-3),
    "gaussianization": Wild(flows.GaussianizationFlow((4,)), 1e-3),
    "planar": Wild(flows.PlanarFlow((4,)), 1e-4),
    "radial": Wild(flows.RadialFlow((4,)), 1e-4),
    "residual": Wild(flows.ResidualFlow((4,)), 1e-4),
    "sylvester": Wild(flows.SylvesterFlow((4,)), 1e-4),
}


class Measured(NamedTuple):
    """What a wild flow does.

    Attributes:
      finite: Whether values, log-determinants, samples and densities are finite in both directions.
      noise: Residual of noise to data and back.
      data: Residual of data to noise and back.
      density: Largest difference between the densities of samples, as drawn and evaluated: not
        finite where a residual is so large that its square overflows.
    """

    finite: bool
    noise: float
    data: float
    density: float


def measure(flow: Any, dtype: Any = np.float32, seeds: int = SEEDS) -> Measured:
    """Measures the worst of several draws; in float64, networks compute in it too."""
    model = models.FlowModel(flow)
    variables = jax.jit(lambda key: model.init(key))(jax.random.key(0))
    widen = {np.dtype("float32"): dtype}
    variables = jax.tree.map(lambda leaf: leaf.astype(widen.get(leaf.dtype, leaf.dtype)), variables)
    if dtype == np.float64:
        flow = flow.clone(dtype=jnp.float64)
        model = models.FlowModel(flow)

    @jax.jit
    def values(params, z, x):
        given = {**variables, "params": params}
        bijector = flow.apply({name: tree["flow"] for name, tree in given.items()})
        density = model.apply(given)
        y, log_det = bijector.forward_and_log_det(z)
        back, inverse_log_det = bijector.inverse_and_log_det(y)
        noise, of_data = bijector.inverse_and_log_det(x)
        again, of_noise = bijector.forward_and_log_det(noise)
        sample, as_drawn = density.sample_and_log_prob(seed=jax.random.key(1), sample_shape=ROWS)
        evaluated = density.log_prob(sample)
        finite = [y, log_det, back, inverse_log_det, noise, of_data, again, of_noise]
        finite += [sample, as_drawn, density.log_prob(x)]
        return finite, (z, back), (x, again), (as_drawn, evaluated)

    worst = []
    for seed in range(seeds):
        generator = np.random.default_rng(100 + seed)
        z = generator.normal(size=(ROWS, *flow.noise_shape)).astype(dtype)
        x = generator.normal(size=(ROWS, *flow.event_shape)).astype(dtype)
        arrays, *pairs = values(noisy(variables["params"], NOISE, seed), z, x)
        finite = all(np.isfinite(array).all() for array in arrays)
        worst.append((not finite, *(float(np.abs(a - b).max()) for a, b in pairs)))
    unsound, *residuals = (max(column) for column in zip(*worst, strict=True))
    return Measured(not unsound, *residuals)


def main() -> None:
    """Measures in float64; prints a line for each flow, and exits with the number of failures."""
    jax.config.update("jax_enable_x64", True)
    failures = 0
    for name, wild in FLOWS.items():
        if wild.residual_float64 is None:
            continue
        found = measure(wild.flow, np.float64)
        within = found.noise <= wild.residual_float64
        within &= found.data <= wild.residual_float64 or not wild.both
        sound = found.finite and within and found.density <= 10 * wild.residual_float64
        failures += not sound
        print(f"{name}: {found} {'' if sound else 'FAILED'}")
    print(f"{failures} failures")
    sys.exit(failures)


if __name__ == "__main__":
    main()
