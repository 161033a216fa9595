"""Breaks the library on purpose, one small fault at a time, and says which faults tests see.

python tests/mutants.py [--list] [--check] [--only NAME ...] [--out FILE.json]

A mutant replaces a text that occurs once in the Python files of vaeflow/ and experiments/, in
whichever file that is, and runs the tests that should see it. Files are changed in place and
restored; the script refuses to start where they have changes that aren't committed.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = ("vaeflow", "experiments")
SECONDS = 300
"""After which the tests of a mutant count as having seen it, since they don't come to an end."""
PYTEST = ("-x", "-q", "-p", "no:cacheprovider")

LAWS = "tests/bijectors/test_laws.py -k"
DENSITIES = "tests/distributions/test_distribution_laws.py -k"
QUANTIZERS = "tests/quantizers/test_quantizer_laws.py -k"


class Mutant(NamedTuple):
    """A fault and the tests that should see it.

    Attributes:
      name: PACKAGE/FAULT.
      text: What is replaced; it occurs once.
      replacement: What takes its place.
      tests: Arguments of pytest: paths, and at most one expression after ``-k``.
    """

    name: str
    text: str
    replacement: str
    tests: str

    def selection(self) -> tuple[list[str], str]:
        """The paths and the expression of the tests."""
        words = [*shlex.split(self.tests), "-k", ""]
        place = words.index("-k")
        return words[:place], words[place + 1]


MUTANTS = [
    # Bijectors: values, log-determinants, inverses and gradients written by hand.
    Mutant(
        "bijectors/actnorm-counts-one-position",
        "positions * sum_event(self.log_scale, 1)",
        "sum_event(self.log_scale, 1)",
        f"{LAWS} 'ActNorm and image'",
    ),
    Mutant(
        "bijectors/affine-inverse-log-det-sign",
        "(y - shift) * jnp.exp(-log_scale), -sum_event(",
        "(y - shift) * jnp.exp(-log_scale), sum_event(",
        f"{LAWS} 'ElementwiseAffine and image'",
    ),
    Mutant(
        "bijectors/log-scales-bend-only-above",
        "((1, upper), (-1, -lower))",
        "((1, upper),)",
        "tests/bijectors/test_exact_values.py -k bend",
    ),
    Mutant(
        "bijectors/log-scales-bend-with-a-kink",
        "values -= sign * u * (u * u) / (u * (u + w) + w * w)",
        "values -= sign * u * w / (u + w)",
        "tests/bijectors/test_exact_values.py -k finite_derivatives",
    ),
    Mutant(
        "flows/real-nvp-without-its-bounds",
        "log_scale: Callable[[Array], Array] = BoundedLogScale()\n\n    def check_fields",
        "log_scale: Callable[[Array], Array] = BoundedLogScale(-99, 99)\n\n    def check_fields",
        "tests/flows/test_wild_weights.py -k real-nvp",
    ),
    Mutant(
        "bijectors/coupling-inverse-order",
        "b * jnp.exp(-log_scale) - shift",
        "(b - shift) * jnp.exp(-log_scale)",
        f"{LAWS} 'AffineCoupling and vector'",
    ),
    Mutant(
        "bijectors/spline-slope-once",
        "2 * jnp.log(s / denominator)",
        "jnp.log(s / denominator)",
        f"{LAWS} 'RationalQuadraticSpline and scalar'",
    ),
    Mutant(
        "bijectors/spline-softmax-gradient",
        "/ total - softmax * dtotal)",
        "/ total)",
        f"{LAWS} 'RationalQuadraticSpline and scalar'",
    ),
    Mutant(
        "bijectors/spline-forgets-turns",
        "offset + jnp.where(outside, start, value)",
        "jnp.where(outside, start, value)",
        "tests/bijectors/test_spline.py -k circular",
    ),
    Mutant(
        "bijectors/planar-constraint",
        "(stretch - 1 - product)",
        "(stretch - product)",
        "tests/bijectors/test_planar_and_radial.py -k 'planar'",
    ),
    Mutant(
        "bijectors/radial-one-direction-too-many",
        "(self.center.shape[-1] - 1) * tangential",
        "self.center.shape[-1] * tangential",
        f"{LAWS} 'Radial and context'",
    ),
    Mutant(
        "bijectors/sylvester-diagonal-reaches-one",
        "LARGEST_DIAGONAL * jnp.tanh(",
        "jnp.tanh(",
        "tests/bijectors/test_sylvester.py -k 'invertible or formula'",
    ),
    Mutant(
        "bijectors/monotone-solve-gradient-sign",
        "(dtarget - dvalue) / slope",
        "(dvalue - dtarget) / slope",
        "tests/bijectors/test_numerical.py -k gradients",
    ),
    Mutant(
        "bijectors/contraction-gradient-sign",
        "right - pull_back(w)[0]",
        "right + pull_back(w)[0]",
        f"{LAWS} 'Residual and vector'",
    ),
    Mutant(
        "bijectors/roulette-unweighted",
        "jnp.where(index < SURE_TERMS, 1, CONTINUATION)",
        "1",
        "tests/bijectors/test_residual.py -k 'mean_of_the_exact or means_of_the_exact'",
    ),
    Mutant(
        "bijectors/householder-half",
        "jnp.eye(unit.shape[-2], dtype=unit.dtype) / 2",
        "jnp.eye(unit.shape[-2], dtype=unit.dtype)",
        "tests/bijectors/test_linear.py -k successive_reflections",
    ),
    Mutant(
        "bijectors/convolution-inverse-log-det-sign",
        "-positions * log_abs_determinant(",
        "positions * log_abs_determinant(",
        f"{LAWS} 'Invertible1x1Convolution and image and not PLU'",
    ),
    Mutant(
        "bijectors/autoregressive-gradient-of-later-entries",
        "dx = dx + pulled_back",
        "dx = dx + 0 * pulled_back",
        "tests/bijectors/test_autoregressive.py -k inverse_and_gradient",
    ),
    Mutant(
        "bijectors/reversible-trusts-any-recovery",
        "error <= bound,",
        "error <= jnp.inf,",
        "tests/bijectors/test_reversible.py -k as_exact_as_plain",
    ),
    Mutant(
        "bijectors/reversible-forgets-gradient-of-context",
        "[a + b for a, b in zip(dcontext, differentiable(dstep_context), strict=True)]",
        "differentiable(dstep_context)",
        "tests/bijectors/test_reversible.py -k any_depth",
    ),
    Mutant(
        "bijectors/continuous-inverse-keeps-time",
        "time = 1 - time if self.inverse else time",
        "time = time",
        f"{LAWS} 'Continuous and (trip or symmetry or jit)'",
    ),
    Mutant(
        "bijectors/squeeze-checkerboard-back",
        "jnp.array((0, 2, 3, 1))",
        "jnp.array((0, 3, 1, 2))",
        f"{LAWS} 'Squeeze'",
    ),
    Mutant(
        "bijectors/bernstein-degree",
        "degree * _de_casteljau(_parameter_first(increments, x), t)",
        "_de_casteljau(_parameter_first(increments, x), t)",
        f"{LAWS} 'Bernstein and not Coupling'",
    ),
    Mutant(
        "bijectors/gaussianization-scale-of-kernels",
        "log_hazard(z) - log_scales",
        "log_hazard(z)",
        f"{LAWS} 'MixtureGaussianization'",
    ),
    Mutant(
        "bijectors/gaussianization-search-in-units-of-one",
        "log_unit = lax.stop_gradient(_log_deviation(centres - middle, log_scales))",
        "log_unit = jnp.zeros_like(middle)",
        "tests/bijectors/test_gaussianization.py -k 'unit'",
    ),
    Mutant(
        "bijectors/radial-lengths-in-units-of-one",
        "unit = jnp.where(is_zero, 1.0, size)",
        "unit = jnp.ones_like(size)",
        "tests/bijectors/test_planar_and_radial.py -k 'radial'",
    ),
    Mutant(
        "bijectors/scan-inverts-first-step-first",
        "jax.lax.scan(body, start, self.variables, reverse=inverse, unroll=self.unroll)[0]",
        "jax.lax.scan(body, start, self.variables, unroll=self.unroll)[0]",
        f"{LAWS} 'Scan and context'",
    ),
    Mutant(
        "bijectors/sigmoid-no-edge",
        "near, far = END_OF_INTERVAL * width, (1 - END_OF_INTERVAL) * width",
        "near, far = 0.0 * width, width",
        "tests/bijectors/test_positive.py",
    ),
    Mutant(
        "bijectors/density-outside-the-range",
        "jnp.where(jnp.any(outside, axis=axes), -jnp.inf, sum_event(log_slopes, event_ndims))",
        "sum_event(log_slopes, event_ndims)",
        "tests/bijectors/test_positive.py",
    ),
    # Flows: what they start from, and what reaches each step.
    Mutant(
        "flows/nice-scale-sign",
        "lambda: -actnorm_parameters(couplings.inverse(data))[1]",
        "lambda: actnorm_parameters(couplings.inverse(data))[1]",
        "tests/flows -k 'nice or NICE'",
    ),
    Mutant(
        "flows/glow-starts-without-rotation",
        "jnp.exp(log_scale) @ weight",
        "jnp.exp(log_scale)",
        "tests/flows/test_initial_steps.py",
    ),
    Mutant(
        "flows/multiscale-starts-from-other-channels",
        "None if data is None else data[..., :num_kept]",
        "None if data is None else data[..., -num_kept:]",
        "tests/models/test_flow_model.py -k 'standardised'",
    ),
    Mutant(
        "flows/stack-starts-every-step-from-the-data",
        "return self.step(variables, context).forward(data).astype(data.dtype), variables",
        "return data, variables",
        "tests/models/test_flow_model.py tests/flows/test_autoregressive_flows.py "
        "-k 'standardised or standardises'",
    ),
    Mutant(
        "flows/standardized-forgets-unit",
        "deviation = unit * jnp.maximum(",
        "deviation = jnp.maximum(",
        "tests/flows/test_standardized.py",
    ),
    Mutant(
        "flows/context-reaches-nothing",
        "value + jnp.tensordot(context, kernel[name], 1)",
        "value + 0 * jnp.tensordot(context, kernel[name], 1)",
        "tests/flows/test_classic_flows.py -k depends_on_the_context",
    ),
    Mutant(
        "flows/blocks-share-probes",
        "None if key is None else jax.random.fold_in(key, number)",
        "None if key is None else key",
        "tests/flows/test_continuous_flow.py -k probes",
    ),
    Mutant(
        "flows/planes-miss-the-data",
        "bias = -jnp.sum(weight * jax.random.choice(keys[2], data))",
        "bias = jnp.sum(weight * jax.random.choice(keys[2], data))",
        "tests/flows/test_initial_steps.py",
    ),
    Mutant(
        "flows/bounded-starts-from-bounded-data",
        "data = interval.inverse(data)",
        "data = data",
        "tests/flows/test_initial_steps.py",
    ),
    # Distributions: densities, samples, temperatures.
    Mutant(
        "distributions/codes-ignore-temperature",
        "self._truncated(self._network(value))",
        "self._network(value)",
        "tests/distributions/test_code_maps.py -k renormalised",
    ),
    Mutant(
        "distributions/top-p-counts-the-code-itself",
        "jnp.cumsum(descending, axis=-1) - descending",
        "jnp.cumsum(descending, axis=-1)",
        "tests/distributions/test_code_maps.py -k truncation_by_probability",
    ),
    Mutant(
        "distributions/logistic-lowest-cell",
        "value < -0.5 + 1.5 * half",
        "value < -0.5",
        "tests/distributions/test_discrete_laws.py -k 'logistic or add_up'",
    ),
    Mutant(
        "distributions/concrete-constant",
        "(size - 1) * math.log(self._temperature)",
        "size * math.log(self._temperature)",
        "tests/distributions/test_concrete.py -k integrates",
    ),
    Mutant(
        "distributions/gaussian-variance-of-columns",
        "jnp.sum(self._factor**2, axis=-1)",
        "jnp.sum(self._factor**2, axis=-2)",
        "tests/distributions -k 'full_gaussian or (FullGaussian and moments)'",
    ),
    Mutant(
        "distributions/quotients-derivative-lacks-a-term",
        "(change - ratio * change_below) / primals[1]",
        "change / primals[1]",
        "tests/distributions/test_exact_densities.py -k 'deviation'",
    ),
    Mutant(
        "distributions/resampled-one-draw-too-many",
        "(self._truncation - 1) * jnp.log1p(-self._share)",
        "self._truncation * jnp.log1p(-self._share)",
        f"{DENSITIES} 'Resampled and (integrates or agree or moments)'",
    ),
    Mutant(
        "distributions/transformed-sample-log-det-sign",
        "return x, log_prob - log_det",
        "return x, log_prob + log_det",
        f"{DENSITIES} 'Transformed and agree'",
    ),
    Mutant(
        "distributions/rows-log-det-sign",
        "return values, log_prob - log_det",
        "return values, log_prob + log_det",
        "tests/models/test_vae.py -k 'densities_of_samples and planar'",
    ),
    Mutant(
        "distributions/kl-of-entries",
        "(ratio - 1) * (ratio + 1)",
        "(ratio - 1) * ratio",
        "tests/losses/test_aggregate.py -k kl_per_dimension",
    ),
    Mutant(
        "distributions/product-of-deviations",
        "0.5 * jax.nn.softplus(2 * log_ratio)",
        "jax.nn.softplus(2 * log_ratio)",
        "tests/distributions/test_product_of_normals.py",
    ),
    Mutant(
        "distributions/histogram-transposes-cells",
        "jnp.stack([column, row], axis=-1)",
        "jnp.stack([row, column], axis=-1)",
        "tests/distributions/test_plane_densities.py -k 'fill_its_cells or never_leave'",
    ),
    Mutant(
        "distributions/continuous-bernoulli-normalizer",
        "size / 2 + jnp.log(-jnp.expm1(-size))",
        "jnp.log(-jnp.expm1(-size))",
        "tests/distributions/test_discrete_laws.py -k quadrature",
    ),
    Mutant(
        "distributions/top-down-shares-a-key",
        "zip(reversed(self._conditionals), keys[:-1], strict=True)",
        "zip(reversed(self._conditionals), [keys[-1]] * (len(keys) - 1), strict=True)",
        "tests/distributions -k 'test_hierarchical or HierarchicalPrior'",
    ),
    Mutant(
        "distributions/kl-forgets-a-determinant",
        "+ q._log_det() - p._log_det()",
        "+ q._log_det()",
        "tests/distributions/test_closed_forms.py -k 'FullGaussian and density'",
    ),
    Mutant(
        "distributions/mean-from-the-end-of-the-last-cell",
        "beyond = (num - 1) / 2 - ",
        "beyond = num / 2 - ",
        "tests/distributions/test_closed_forms.py -k 'DiscretizedLogisticMixture and density'",
    ),
    Mutant(
        "distributions/mean-without-correction-at-the-ends",
        "slope * inverse * (1 / 24",
        "slope * inverse * (0",
        "tests/distributions/test_closed_forms.py -k exact_at_any_scale",
    ),
    Mutant(
        "distributions/histogram-variance-between-cells",
        "jnp.stack(between, axis=-1) + self._widths() ** 2 / 12",
        "jnp.stack(between, axis=-1)",
        "tests/distributions/test_closed_forms.py -k 'Histogram and density'",
    ),
    # Bases.
    Mutant(
        "bases/gaussian-ignores-temperature",
        "temperature * jnp.exp(log_scale.astype(dtype))",
        "jnp.exp(log_scale.astype(dtype))",
        "tests/models/test_flow_bases.py -k temperature",
    ),
    Mutant(
        "bases/box-temperature-moves-the-middle",
        "center + sign * temperature * half",
        "temperature * (center + sign * half)",
        "tests/models/test_flow_bases.py -k temperature",
    ),
    Mutant(
        "bases/negative-label-is-the-last",
        "jnp.where(labels < 0, self.num_classes, labels)",
        "labels",
        "tests/models/test_flow_bases.py -k labels_out_of_range",
    ),
    Mutant(
        "bases/share-of-mean-logit",
        "jnp.mean(nn.sigmoid(acceptance(points)))",
        "nn.sigmoid(jnp.mean(acceptance(points)))",
        "tests/distributions/test_distribution_laws.py tests/models/test_flow_bases.py "
        "-k 'resampled or (Resampled and (integrates or agree))'",
    ),
    # Networks: causality, Lipschitz bounds, gradients.
    Mutant(
        "nn/raster-position-sees-itself",
        "jnp.pad(sequence, ((0, 0), (1, 0), (0, 0)))[:, :-1]",
        "sequence",
        "tests/nn/test_raster_networks.py -k exactly_the_codes_before",
    ),
    Mutant(
        "nn/attention-misses-the-last",
        "jnp.arange(key.shape[1]) <= positions[:, None]",
        "jnp.arange(key.shape[1]) < jnp.maximum(positions[:, None], 1)",
        "tests/nn/test_causal_layers.py -k attention",
    ),
    Mutant(
        "nn/masked-layer-too-strict",
        "before[:, None] <= after",
        "before[:, None] < after",
        "tests/nn/test_masked.py -k exactly_the_dimensions_before",
    ),
    Mutant(
        "nn/masked-default-narrower-than-vectors",
        "(max(WIDTH, self.dimension),) * 2",
        "(WIDTH, WIDTH)",
        "tests/nn/test_masked.py -k default",
    ),
    Mutant(
        "nn/receptive-field-of-whole-kernels",
        "self.num_blocks * (self.kernel_size // 2)",
        "self.num_blocks * self.kernel_size",
        "tests/nn/test_raster_networks.py -k rectangle",
    ),
    Mutant(
        "nn/spectral-bound-of-unit-kernel",
        "largest * jnp.exp(log_bound)",
        "jnp.exp(log_bound)",
        "tests/nn/test_lipschitz.py -k bound_is_above",
    ),
    Mutant(
        "nn/lipschitz-one-layer-too-few",
        "self.lipschitz ** (1 / (len(self.hidden_sizes) + 1))",
        "self.lipschitz ** (1 / (len(self.hidden_sizes) + 2))",
        "tests/nn/test_lipschitz.py -k never_exceed",
    ),
    Mutant(
        "nn/adaptive-norm-scale-around-zero",
        "1 + params[:, 2 * position], params[",
        "params[:, 2 * position], params[",
        "tests/nn/test_instance_norm.py -k block_adds",
    ),
    Mutant(
        "nn/convolution-kernel-gradient-unflipped",
        "product[:, ::-1, ::-1].transpose(1, 2, 0, 3)",
        "product.transpose(1, 2, 0, 3)",
        "tests/nn/test_convolution.py -k native",
    ),
    Mutant(
        "nn/halving-counts-the-border",
        "count_include_pad=False",
        "count_include_pad=True",
        "tests/nn/test_patch_discriminator.py -k pooling",
    ),
    Mutant(
        "nn/frequencies-without-smoothing",
        "jnp.full((*self.map_shape, self.num_codes), 0.5,",
        "jnp.full((*self.map_shape, self.num_codes), 1e-6,",
        "tests/models/test_code_prior.py -k 'frequencies or bits_of_a_code'",
    ),
    # Encoders and decoders.
    Mutant(
        "encoders/context-is-lost",
        "jnp.concatenate([x, maps], axis=-1)",
        "x if x.ndim > 2 else jnp.concatenate([x, maps], axis=-1)",
        "tests/encoders/test_posteriors.py",
    ),
    Mutant(
        "encoders/factor-above-the-diagonal",
        "factor.at[..., rows, columns].set(below)",
        "factor.at[..., columns, rows].set(below)",
        "tests/losses/test_bounds.py -k tight",
    ),
    Mutant(
        "encoders/deviation-starts-below-one",
        "jax.nn.softplus(raw + math.log(math.e - 1))",
        "jax.nn.softplus(raw)",
        "tests/losses/test_bounds.py -k tight",
    ),
    Mutant(
        "encoders/groups-ignore-temperature",
        "group.standard(temperature)",
        "group.standard()",
        "tests/encoders/test_posteriors.py",
    ),
    Mutant(
        "encoders/shared-flow-reads-the-image",
        "features if self.amortised else None",
        "features",
        "tests/encoders/test_posteriors.py",
    ),
    Mutant(
        "decoders/gaussian-starts-at-other-deviation",
        "jnp.log(jnp.expm1(deviation - SMALLEST_SCALE))",
        "jnp.log(deviation - SMALLEST_SCALE)",
        "tests/decoders/test_initial_likelihoods.py -k gaussian",
    ),
    Mutant(
        "decoders/logistic-starts-too-wide",
        "deviation / (LOGISTIC_DEVIATION * self.num_components)",
        "deviation / self.num_components",
        "tests/decoders/test_initial_likelihoods.py -k logistic",
    ),
    Mutant(
        "decoders/odd-sizes-are-cut",
        "(-(-height // 2**level), -(-width // 2**level))",
        "(height // 2**level, width // 2**level)",
        "tests/decoders/test_adaptive.py -k any_size",
    ),
    Mutant(
        "decoders/blocks-share-a-modulation",
        "modulation[:, block * per_block : (block + 1) * per_block]",
        "modulation[:, :per_block]",
        "tests/decoders/test_adaptive.py -k 'modulated_blocks'",
    ),
    # Quantizers.
    Mutant(
        "quantizers/two-levels-far-from-the-center",
        "np.where(levels == 2, 0.0, np.arctanh(below / half))",
        "np.arctanh(below / half)",
        "tests/quantizers/test_code_kinds.py -k every_number_of_levels",
    ),
    Mutant(
        "quantizers/average-of-vectors-undamped",
        "self.decay * before.sums + new * assigned.sums",
        "self.decay * before.sums + assigned.sums",
        "tests/quantizers/test_codebook_learning.py -k formulas",
    ),
    Mutant(
        "quantizers/restart-keeps-the-count",
        "jnp.where(restarts, even, after.counts)",
        "after.counts",
        "tests/quantizers/test_codebook_learning.py -k 'formulas or restarted'",
    ),
    Mutant(
        "quantizers/index-within-its-block",
        "jnp.where(less, start + index, best[1])",
        "jnp.where(less, index, best[1])",
        "tests/quantizers/test_nearest.py -k any_number",
    ),
    Mutant(
        "quantizers/bad-latents-teach",
        "targets = jnp.where(finite, indices, self.num_codes)",
        "targets = indices",
        f"{QUANTIZERS} '(nan_latent or nan_example) and VectorQuantizer'",
    ),
    Mutant(
        "quantizers/devices-learn-apart",
        "*axis.sum((assigned, candidates))",
        "assigned, candidates",
        f"{QUANTIZERS} 'divided_batch and VectorQuantizer'",
    ),
    Mutant(
        "quantizers/gumbel-entropy-alone",
        "math.log(self.num_codes) + negative_entropy",
        "negative_entropy",
        "tests/quantizers/test_code_kinds.py -k 'codes_are_sampled or relaxed'",
    ),
    Mutant(
        "quantizers/rotation-is-no-reflection",
        "2 * mirror * jnp.sum(",
        "mirror * jnp.sum(",
        f"{QUANTIZERS} 'rotation and gradient_is'",
    ),
    Mutant(
        "quantizers/groups-share-noise",
        "(rows, jnp.arange(self.num_groups))",
        "(rows, 0 * jnp.arange(self.num_groups))",
        "tests/quantizers/test_code_kinds.py -k their_own_keys",
    ),
    Mutant(
        "quantizers/even-levels-unshifted",
        "np.arctanh(below / half)",
        "0 * half",
        "tests/quantizers/test_code_kinds.py -k levels_are_reached",
    ),
    Mutant(
        "quantizers/commitment-of-the-last-stage-alone",
        "jax.lax.stop_gradient(jnp.cumsum(chosen, axis=0))",
        "jax.lax.stop_gradient(chosen)",
        "tests/quantizers/test_code_kinds.py tests/quantizers/test_codebook_learning.py "
        "-k 'stage_by_stage or losses_are'",
    ),
    # Models.
    Mutant(
        "models/flow-ignores-temperature",
        "standard_normal(self.flow.noise_shape, batch, temperature)",
        "standard_normal(self.flow.noise_shape, batch)",
        "tests/models/test_flow_model.py -k temperature",
    ),
    Mutant(
        "models/flow-forgets-cost-of-dequantization",
        "density.log_prob(values) + log_det",
        "density.log_prob(values)",
        "tests/models/test_flow_model.py -k dequantized",
    ),
    Mutant(
        "models/dequantizer-sigmoid-slope-sign",
        "- jnp.sum(log_sigmoid_slope, axis=(1, 2, 3))",
        "+ jnp.sum(log_sigmoid_slope, axis=(1, 2, 3))",
        "tests/models/test_dequantizer.py -k exact_probability",
    ),
    Mutant(
        "models/kl-of-samples-sign",
        "(self.log_q[name] - self.log_p[name]).mean(0)",
        "(self.log_p[name] - self.log_q[name]).mean(0)",
        "tests/losses/test_bounds.py tests/losses/test_aggregate.py tests/models/test_vae.py "
        "-k 'bounds or weights or groups or every_part'",
    ),
    Mutant(
        "models/levels-share-noise",
        "of_level = jax.vmap(jax.random.fold_in, (0, None))(keys, level)",
        "of_level = keys",
        "tests/models/test_hierarchical_vae.py -k 'evidence or bayes'",
    ),
    Mutant(
        "models/lower-levels-ignore-temperature",
        "normals(self.network(above), self.temperature)",
        "normals(self.network(above))",
        "tests/models/test_hierarchical_vae.py -k 'prior or exported'",
    ),
    Mutant(
        "models/priors-share-a-key",
        "jax.random.split(rng, len(self.priors))",
        "[rng] * len(self.priors)",
        "tests/models/test_code_model.py -k 'samples or sampling_arguments'",
    ),
    Mutant(
        "models/munit-content-of-the-wrong-domain",
        "self.decode_values(codes[other_domain(to)][0],",
        "self.decode_values(codes[to][0],",
        "tests/models/test_munit.py -k call_translates",
    ),
    Mutant(
        "models/pseudo-inputs-without-noise",
        "data[jnp.arange(self.num_components) % len(data)] + noise",
        "data[jnp.arange(self.num_components) % len(data)]",
        "tests/models/test_vae.py -k pseudo_inputs",
    ),
    Mutant(
        "models/binarizer-never-sure",
        "quantize_levels(images, 8) / 255",
        "quantize_levels(images, 8) / 256",
        "tests/models/test_vae.py -k binarizer",
    ),
    # Losses.
    Mutant(
        "losses/observation-is-free",
        "likelihood.log_prob(inference.values) + inference.log_det",
        "likelihood.log_prob(inference.values)",
        "tests/losses/test_costs_of_observation.py -k elbo",
    ),
    Mutant(
        "losses/free-bits-of-the-whole",
        "jnp.sum(jnp.maximum(free_bits, average))",
        "jnp.maximum(free_bits, jnp.sum(average))",
        "tests/losses/test_bounds.py -k weights_of_the_kl",
    ),
    Mutant(
        "losses/capacity-one-sided",
        "jnp.abs(axis.mean(kl) - check_number",
        "(axis.mean(kl) - check_number",
        "tests/losses/test_bounds.py -k weights_of_the_kl",
    ),
    Mutant(
        "losses/capacity-of-each-device",
        "axis.mean(kl) - check_number",
        "kl - check_number",
        "tests/losses/test_bounds.py -k divided",
    ),
    Mutant(
        "losses/sum-of-weights",
        "jax.nn.logsumexp(log_weights, axis=0) - math.log(log_weights.shape[0])",
        "jax.nn.logsumexp(log_weights, axis=0)",
        "tests/losses/test_bounds.py -k tight",
    ),
    Mutant(
        "losses/doubly-reparameterized-once",
        "push_forward(weights * dz, doperands)",
        "push_forward(dz, doperands)",
        "tests/losses/test_bounds.py -k less_variance",
    ),
    Mutant(
        "losses/score-of-the-posterior-stays",
        "jax.lax.stop_gradient(latents.posterior)",
        "latents.posterior",
        "tests/losses/test_bounds.py -k no_gradient",
    ),
    Mutant(
        "losses/aggregate-weight-of-others",
        "log_others - jnp.log(others))",
        "-jnp.log(others))",
        "tests/losses/test_aggregate.py -k 'nearer or exact'",
    ),
    Mutant(
        "losses/hfvae-gamma-is-lost",
        "+ gamma * sum(terms.within_groups.values())",
        "+ sum(terms.within_groups.values())",
        "tests/losses/test_aggregate.py -k weights_multiply",
    ),
    Mutant(
        "losses/discriminator-labels",
        "jax.nn.softplus(-joint)",
        "jax.nn.softplus(joint)",
        "tests/losses/test_factor_vae.py -k cross_entropy",
    ),
    Mutant(
        "losses/shuffle-keeps-rows",
        "(rank + 1) % values.shape[0]",
        "rank % values.shape[0]",
        "tests/losses/test_factor_vae.py -k another_row",
    ),
    Mutant(
        "losses/discrepancy-biased",
        "len(SCALES) * rows) / (rows * (rows - 1))",
        "len(SCALES) * rows) / rows**2",
        "tests/losses/test_moments.py -k slow_reference",
    ),
    Mutant(
        "losses/dip-vae-variance-toward-zero",
        "jnp.sum((on - 1) ** 2)",
        "jnp.sum(on**2)",
        "tests/losses/test_moments.py -k penalty",
    ),
    Mutant(
        "losses/munit-discriminator-targets",
        "_squares(fake, 0.0)",
        "_squares(fake, 1.0)",
        "tests/losses/test_munit_losses.py -k discriminator_loss_equals",
    ),
    Mutant(
        "losses/munit-styles-share-noise",
        "NOISE + len(DOMAINS) + number",
        "NOISE + number",
        "tests/losses/test_munit_losses.py -k 'noise_follows or generator_loss_equals'",
    ),
    Mutant(
        "losses/energy-sign-of-weights",
        "axis.gather(-energies - log_q)",
        "axis.gather(log_q - energies)",
        "tests/losses/test_reverse.py -k 'weights or gaussian'",
    ),
    Mutant(
        "losses/codes-are-free",
        "(reconstruction + code_nats) / bits",
        "reconstruction / bits",
        "tests/losses/test_vq_vae.py -k weighted_sum",
    ),
    Mutant(
        "losses/likelihood-in-nats-of-the-whole",
        "return nats / dimensions, Aux",
        "return nats, Aux",
        "tests/losses/test_likelihood.py -k units",
    ),
    Mutant(
        "losses/schedule-never-ends",
        "jnp.minimum(jnp.asarray(step, jnp.float32) / steps, 1.0)",
        "jnp.asarray(step, jnp.float32) / steps",
        "tests/losses/test_schedules.py",
    ),
    # Metrics.
    Mutant(
        "metrics/frechet-biased-covariance",
        "np.sqrt(len(rows) - 1)",
        "np.sqrt(len(rows))",
        "tests/metrics/test_frechet.py -k 'worked or root'",
    ),
    Mutant(
        "metrics/inception-marginal-of-all-inputs",
        "np.mean(probabilities, axis=-2)",
        "np.mean(probabilities, axis=0)",
        "tests/metrics/test_inception_score.py",
    ),
    Mutant(
        "metrics/gap-needs-two-latents",
        "np.concatenate([np.zeros((1, scores.shape[1])), scores])",
        "np.concatenate([scores[:1], scores])",
        "tests/metrics/test_disentanglement.py -k 'by_hand or one_factor or fewer_latents'",
    ),
    Mutant(
        "metrics/marginal-likelihood-forgets-observation",
        "total - math.log(num_samples) + log_det",
        "total - math.log(num_samples)",
        "tests/losses/test_costs_of_observation.py -k log_likelihoods",
    ),
    Mutant(
        "metrics/annealing-counts-the-tuning-chain",
        "jax.nn.logsumexp(last.log_weights[1:], axis=0)",
        "jax.nn.logsumexp(last.log_weights, axis=0)",
        "tests/metrics/test_annealed_importance.py -k not_counted",
    ),
    Mutant(
        "metrics/annealing-forgets-momentum",
        "0.5 * jnp.sum(momentum**2 - end_momentum**2, axis=-1)",
        "0.0",
        "tests/metrics/test_annealed_importance.py -k 'unbiased or bounds'",
    ),
    Mutant(
        "metrics/importance-log-of-sum",
        "jax.nn.logsumexp(log_weights) - jnp.log(size)",
        "jax.nn.logsumexp(log_weights)",
        "tests/metrics/test_importance.py -k 'known or scale'",
    ),
    Mutant(
        "metrics/diversity-biased",
        "ddof=1), axis=-1",
        "ddof=0), axis=-1",
        "tests/metrics/test_perceptual_distance.py -k pairs",
    ),
    Mutant(
        "metrics/quadrature-at-corners",
        "(np.arange(num_cells) + 0.5)",
        "np.arange(num_cells)",
        "tests/metrics/test_quadrature.py",
    ),
    # Data.
    Mutant(
        "data/flip-upside-down",
        "images[flipped, :, ::-1]",
        "images[flipped, ::-1]",
        "tests/data/test_batches.py -k 'belong_together or flips'",
    ),
    Mutant(
        "data/resume-from-the-start",
        '{"next_index": start_step}',
        '{"next_index": 0}',
        "tests/data/test_batches.py -k resuming",
    ),
    Mutant(
        "data/epoch-drops-the-rest",
        "for start in range(0, len(source), batch_size)",
        "for start in range(0, len(source) - batch_size + 1, batch_size)",
        "tests/data/test_batches.py -k epoch_batches",
    ),
    Mutant(
        "data/folds-are-one",
        "blocks[fold:] + blocks[:fold]",
        "blocks",
        "tests/data/test_embedded.py -k tile",
    ),
    Mutant(
        "data/splits-number-rows-alike",
        "offsets[split] = total",
        "offsets[split] = 0",
        "tests/data/test_npz.py tests/data/test_embedded.py "
        "-k 'own_splits or three_given or given_test'",
    ),
    Mutant(
        "data/celeba-crop-too-high",
        "image[40:188, 15:163]",
        "image[35:183, 15:163]",
        "tests/data/test_folder.py -k celeba",
    ),
    Mutant(
        "data/classes-of-styles-collide",
        "styles.ink * len(TEXTURES) + styles.texture",
        "styles.ink + styles.texture",
        "tests/data/test_colored_digits.py -k 'rendered_in_their_styles or independent'",
    ),
    Mutant(
        "data/orientation-is-ignored",
        "image = ImageOps.exif_transpose(image)",
        "image = image",
        "tests/data/test_folder.py -k exif",
    ),
    # Training.
    Mutant(
        "training/warm-up-is-skipped",
        "optax.join_schedules([rise, after], [warmup])",
        "optax.join_schedules([rise, after], [0])",
        "tests/training/test_optimizer.py -k warmup",
    ),
    Mutant(
        "training/biases-decay",
        'getattr(path[-1], "key", None) == "kernel"',
        'getattr(path[-1], "key", None) is not None',
        "tests/training/test_optimizer.py -k kernels_alone",
    ),
    Mutant(
        "training/average-follows-at-once",
        "average, 1.0 - decay)",
        "average, decay)",
        "tests/training/test_step.py -k 'average or bfloat16_networks'",
    ),
    Mutant(
        "training/players-share-keys",
        "jax.vmap(jax.random.fold_in, (0, None))(rng, position) if position else rng",
        "rng",
        "tests/training/test_step.py tests/losses/test_munit_losses.py "
        "-k 'players_are_updated or no_key_is_used_twice'",
    ),
    Mutant(
        "training/parts-are-summed",
        "leaf / count, total",
        "leaf, total",
        "tests/training/test_step.py -k microbatches",
    ),
    Mutant(
        "training/gradients-may-be-infinite",
        'finite & jnp.isfinite(terms["loss"]) & jnp.isfinite(terms["gradient_norm"])',
        'finite & jnp.isfinite(terms["loss"])',
        "tests/training/test_step.py -k freezes_the_state",
    ),
    Mutant(
        "training/steps-share-noise",
        "jax.random.fold_in(jax.random.key(seed), step)",
        "jax.random.key(seed)",
        "tests/training/test_step.py -k noise_depends",
    ),
    Mutant(
        "training/devices-share-noise",
        "first = count * jax.lax.axis_index(DATA_AXIS)",
        "first = 0 * jax.lax.axis_index(DATA_AXIS)",
        "tests/training/test_devices.py -k 'eight_devices and coupled and pmap'",
    ),
    Mutant(
        "training/damaged-checkpoint-is-taken",
        'checksum(tree) != values["crc32"]',
        "False",
        "tests/training/test_checkpoint.py -k replaced_arrays",
    ),
    Mutant(
        "training/patience-lasts-longer",
        "0 < patience <= step - evaluated_step",
        "0 < patience < step - evaluated_step",
        "tests/training/test_loop.py -k 'early_stopping or patience'",
    ),
    Mutant(
        "training/worst-is-best",
        "not evaluation[self.best] < before",
        "evaluation[self.best] < before",
        "tests/training/test_loop.py -k best_variables",
    ),
    Mutant(
        "training/metrics-of-the-checkpoint-are-dropped",
        'line["step"] <= start_step',
        'line["step"] < start_step',
        "tests/training/test_run_directory.py -k lines_after",
    ),
    Mutant(
        "training/repeated-steps-are-sent-again",
        "        if step > self._last:\n            self._run.log",
        "        if True:\n            self._run.log",
        "tests/training/test_trackers.py -k wandb_has_each_step",
    ),
    Mutant(
        "training/failed-loggers-stay",
        "                self._others.remove(logger)\n",
        "",
        "tests/training/test_logging.py -k left_out",
    ),
    Mutant(
        "training/all-hosts-log",
        "MetricLog(directory, start, loggers)) if is_first() else None",
        "MetricLog(directory, start, loggers))",
        "tests/training/test_logging.py -k other_hosts",
    ),
    Mutant(
        "training/domains-share-an-order",
        "np.random.SeedSequence(self.seed).generate_state(2)",
        "[self.seed] * 2",
        "tests/training/test_unpaired_batches.py -k independent",
    ),
    # Sharing.
    Mutant(
        "data/folders-of-splits-in-lower-case-alone",
        'key.partition("/")[0].lower()',
        'key.partition("/")[0]',
        "tests/data/test_folder.py -k any_case",
    ),
    Mutant(
        "data/any-ratio-of-decompression",
        "if size > min(self._left, most_decompressed(compressed)):",
        "if size > 2**40:",
        "tests/test_reading.py -k together",
    ),
    Mutant(
        "data/devices-are-files",
        "if not stat.S_ISREG(mode):",
        "if stat.S_ISDIR(mode):",
        "tests/test_reading.py -k regular",
    ),
    Mutant(
        "sharing/functions-without-digests",
        'described["sha256"] != _digest(content)',
        "False",
        "tests/sharing/test_functions.py -k exchanged",
    ),
    Mutant(
        "sharing/escapes-in-the-wrong-order",
        '.replace("~1", "/").replace("~0", "~")',
        '.replace("~0", "~").replace("~1", "/")',
        "tests/sharing/test_trees.py tests/sharing/test_variables.py "
        "-k 'pointers_are or bit_for_bit'",
    ),
    Mutant(
        "sharing/digest-is-not-checked",
        "digest != _digest(description, arrays)",
        "False",
        "tests/sharing/test_variables.py -k flipped",
    ),
    Mutant(
        "sharing/exported-flow-ignores-temperature",
        'model.apply(variables, temperature=temperature, method="noise")',
        'model.apply(variables, method="noise")',
        "tests/sharing/test_functions.py -k 'exported_functions and mixture'",
    ),
    Mutant(
        "sharing/exported-vae-ignores-temperature",
        'model.apply(variables, context=label, temperature=temperature, method="prior")',
        'model.apply(variables, context=label, method="prior")',
        "tests/models/test_vae.py -k exported_model",
    ),
    # Other libraries.
    Mutant(
        "interop/numpyro-log-density-of-the-base",
        "        return self.distribution.log_prob(jnp.asarray(value))\n",
        "        return 0.5 * self.distribution.log_prob(jnp.asarray(value))\n",
        "tests/interop/test_numpyro.py",
    ),
    Mutant(
        "interop/numpyro-kept-density-is-forgotten",
        "        if intermediates:\n            return intermediates[0]\n",
        "",
        "tests/interop/test_numpyro.py",
    ),
    Mutant(
        "interop/numpyro-given-support-is-ignored",
        "        return _support(self.distribution) if self.given is None else self.given\n",
        "        return _support(self.distribution) or self.given\n",
        "tests/interop/test_numpyro.py",
    ),
    Mutant(
        "interop/numpyro-everything-is-reparameterized",
        "        return is_reparameterized(self.distribution)\n",
        "        return True\n",
        "tests/interop/test_numpyro.py",
    ),
    Mutant(
        "interop/numpyro-domain-is-the-range",
        "            domain_and_range(self.bijector)[0], self.bijector.event_ndims_in\n",
        "            domain_and_range(self.bijector)[1], self.bijector.event_ndims_in\n",
        "tests/interop/test_numpyro.py",
    ),
    Mutant(
        "interop/numpyro-shape-of-the-wrong-direction",
        "        return _shape(self.bijector.inverse, shape)\n",
        "        return shape\n",
        "tests/interop/test_numpyro.py",
    ),
    Mutant(
        "interop/numpyro-transforms-are-equal-by-structure",
        "        return jnp.all(jnp.asarray([jnp.all(one == two) for one, two in pairs]))\n",
        "        return jnp.asarray(True)\n",
        "tests/interop/test_numpyro.py",
    ),
    Mutant(
        "interop/support-by-the-wrong-end",
        "    bijectors.Exp: lambda _: Bounds(0.0, None),\n",
        "    bijectors.Exp: lambda _: Bounds(None, 0.0),\n",
        "tests/interop/test_numpyro.py",
    ),
    Mutant(
        "interop/support-of-parts-in-the-wrong-order",
        "        for part in parts if inverse else reversed(parts):\n",
        "        for part in reversed(parts) if inverse else parts:\n",
        "tests/interop/test_numpyro.py",
    ),
    Mutant(
        "interop/support-of-unknown-classes-is-assumed",
        "        return REAL if _maps_reals(bijector) else None\n",
        "        return REAL\n",
        "tests/interop/test_numpyro.py",
    ),
    Mutant(
        "interop/support-ignores-an-affine-map",
        "        return _affine(bijector, domain, inverse)\n",
        "        return domain\n",
        "tests/interop/test_numpyro.py",
    ),
    Mutant(
        "interop/kept-log-det-of-any-point",
        "        if kept is not None and (kept[0] is x or kept[1] is y):\n",
        "        if kept is not None:\n",
        "tests/interop/test_numpyro.py",
    ),
    Mutant(
        "interop/kept-log-det-of-the-inverse-has-the-wrong-sign",
        "        self._kept = x, y, -log_det\n",
        "        self._kept = x, y, log_det\n",
        "tests/interop/test_numpyro.py",
    ),
    Mutant(
        "interop/two-passes-for-the-log-det",
        "        self._kept = x, y, log_det\n",
        "        self._kept = None\n",
        "tests/interop/test_numpyro.py",
    ),
    Mutant(
        "interop/guide-draws-its-own-seed",
        "            return jax.jit(self.flow.init)(jax.random.key(self.seed))\n",
        "            return jax.jit(self.flow.init)(jax.random.key(id(self) % 1000003))\n",
        "tests/interop/test_flow_guide.py",
    ),
    Mutant(
        "interop/guide-trains-nothing",
        'bijector = self.flow.apply({"params": params, **constants})',
        'bijector = self.flow.apply(jax.lax.stop_gradient({"params": params, **constants}))',
        "tests/interop/test_flow_guide.py",
    ),
    Mutant(
        "interop/guide-of-any-size",
        "        if tuple(self.flow.event_shape) != (self.latent_dim,):\n",
        "        if False:\n",
        "tests/interop/test_flow_guide.py",
    ),
    Mutant(
        "interop/pullback-without-the-log-det",
        "        return value + log_det, position\n",
        "        return value, position\n",
        "tests/interop/test_blackjax.py",
    ),
    Mutant(
        "interop/pullback-forgets-the-context",
        "        bijector = self.flow.apply(variables, context=context)\n        position, log_det",
        "        bijector = self.flow.apply(variables)\n        position, log_det",
        "tests/interop/test_blackjax.py",
    ),
    Mutant(
        "interop/pullback-passes-twice",
        "        return Evaluation(value, gradient, position)\n",
        "        return Evaluation(of_noise(noise)[0], gradient, position)\n",
        "tests/interop/test_blackjax.py",
    ),
    Mutant(
        "interop/chains-drop-the-statistics",
        '    given: dict[str, Any] = {"sample_stats": sample_stats} if sample_stats else {}\n',
        "    given: dict[str, Any] = {}\n",
        "tests/interop/test_arviz.py",
    ),
    Mutant(
        "interop/tfp-log-det-of-the-inverse-has-the-wrong-sign",
        "        return -self._one_pass.log_det(None, y)\n",
        "        return self._one_pass.log_det(None, y)\n",
        "tests/interop/test_tfp.py",
    ),
    Mutant(
        "interop/tfp-arrays-are-constants",
        "    return [jnp.asarray(leaf) for leaf in leaves], structure\n",
        "    return leaves, structure\n",
        "tests/interop/test_tfp.py",
    ),
    Mutant(
        "interop/tfp-forgets-batch-axes",
        "        return _TensorShape(self._batch)\n",
        "        return _TensorShape(())\n",
        "tests/interop/test_tfp.py",
    ),
    Mutant(
        "interop/tfp-support-is-the-reals",
        "        return None if bounds is None else _onto(bounds)\n",
        "        return tfb.Identity()\n",
        "tests/interop/test_tfp.py",
    ),
    Mutant(
        "interop/median-of-tfp",
        "        return self._tfp.quantile(0.5)\n",
        "        return self._tfp.quantile(0.6)\n",
        "tests/interop/test_tfp.py",
    ),
    # Figures.
    Mutant(
        "plotting/points-at-corners",
        "((2 * np.arange(size) + 1) / size - 1)",
        "(2 * np.arange(size) / size - 1)",
        "tests/plotting/test_plane.py -k centres",
    ),
    Mutant(
        "plotting/usage-rises",
        "np.sort(of_codes)[::-1] / np.sum(of_codes)",
        "np.sort(of_codes) / np.sum(of_codes)",
        "tests/plotting/test_code_usage.py",
    ),
    Mutant(
        "plotting/colours-look-alike",
        '"#1f5a96", "#d1662a", "#14a57f"',
        '"#1f5a96", "#d1662a", "#b0821f"',
        "tests/plotting/test_style.py -k palette",
    ),
    Mutant(
        "plotting/numbers-at-ends",
        "np.floor(0.8 * bound / step)",
        "np.floor(bound / step)",
        "tests/plotting/test_plane.py -k numbers",
    ),
    Mutant(
        "plotting/edges-are-not-mapped",
        "images = np.interp(edges, z, x)",
        "images = np.interp(edges, x, z)",
        "tests/plotting/test_line.py -k area",
    ),
    # What everything else uses.
    Mutant(
        "axis/mean-is-a-sum",
        "jax.lax.pmean(tree, self.name)",
        "jax.lax.psum(tree, self.name)",
        "tests/test_axis.py",
    ),
    Mutant(
        "randomness/any-number-of-keys",
        "if rng.shape == (count,):",
        "if rng.ndim == 1:",
        "tests/test_axis.py -k row_keys",
    ),
    Mutant(
        "files/name-before-content",
        "os.fsync(file.fileno())",
        "pass",
        "tests/test_writing.py -k synced",
    ),
    Mutant(
        "interpolation/path-runs-backwards",
        "(1 - weights) * first + weights * last",
        "weights * first + (1 - weights) * last",
        "tests/test_interpolation.py -k linear",
    ),
    # Experiments.
    Mutant(
        "experiments/control-adds-to-latents",
        "state.z.at[unit.start].set(value)",
        "state.z.at[unit.start].add(value)",
        "tests/experiments/test_control.py -k original",
    ),
    Mutant(
        "experiments/scores-of-the-first-class",
        "np.random.RandomState(0).permutation(len(source))[:count]",
        "np.arange(len(source))[:count]",
        "tests/experiments/test_image_scores.py -k all_classes",
    ),
    Mutant(
        "experiments/ratio-to-another-reference",
        'f"frechet_distance/{path}/untranslated"]',
        'f"frechet_distance/{path}/held_out"]',
        "tests/experiments/test_translation_scores.py -k ratios",
    ),
    Mutant(
        "experiments/category-information",
        "entr(marginal).sum() - entr(probability).sum(-1).mean()",
        "entr(marginal).sum()",
        "tests/experiments/test_hfvae.py -k information_and_accuracy",
    ),
    Mutant(
        "experiments/validation-likelihood-sign",
        '"validation_log_likelihood": -fitted.metrics[VALIDATION]',
        '"validation_log_likelihood": fitted.metrics[VALIDATION]',
        "tests/experiments/test_tabular_density.py -k 'embedded_table or size_of_batches'",
    ),
]


class Selected:
    """A plugin of pytest that runs the tests of several selections at once."""

    def __init__(self, mutants: Sequence[Mutant]):
        self._selections = [mutant.selection() for mutant in mutants]

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[Any]) -> None:
        """Keeps what one of the selections would run."""
        by_keyword = config.pluginmanager.get_plugin("mark")
        chosen: set[str] = set()
        for paths, keyword in self._selections:
            own = [item for item in items if any(_lies_in(item.path, path) for path in paths)]
            config.option.keyword = keyword
            by_keyword.pytest_collection_modifyitems(own, config)
            chosen |= {item.nodeid for item in own}
        config.option.keyword = ""
        items[:] = [item for item in items if item.nodeid in chosen]


def _lies_in(file: pathlib.Path, path: str) -> bool:
    return file.is_relative_to(ROOT / path)


def main() -> int:
    """Runs what the command line asks for, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names or patterns: 'nn/*'")
    parser.add_argument("--list", action="store_true", help="print names, files and tests")
    parser.add_argument("--check", action="store_true", help="run the tests of all, unbroken, once")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE.json", help="results to write")
    options = parser.parse_args()
    mutants = [
        mutant
        for mutant in MUTANTS
        if not options.only or any(fnmatch.fnmatch(mutant.name, name) for name in options.only)
    ]
    files = {mutant.name: find(mutant) for mutant in mutants}
    names = Counter(mutant.name for mutant in mutants)
    if not mutants or max(names.values()) > 1:
        raise SystemExit(f"error: names must be some, once each, got {dict(names)}")
    if options.list:
        for mutant in mutants:
            print(f"{mutant.name}: {files[mutant.name].relative_to(ROOT)}: {mutant.tests}")
        return 0
    if options.check:
        return check(mutants)
    _refuse_changes()
    signal.signal(signal.SIGTERM, _stop)  # an exception, so that files are restored
    results = []
    began = time.monotonic()
    for number, mutant in enumerate(mutants, 1):
        result = run(mutant, files[mutant.name])
        results.append(result)
        line = f"[{number}/{len(mutants)}] {result['outcome']:>8} {result['seconds']:6.1f} s"
        print(f"{line}  {mutant.name}  {result['seen_by']}", flush=True)
        if options.out is not None:
            options.out.write_text(json.dumps(results, indent=2) + "\n")
    counts = Counter(result["outcome"] for result in results)
    shown = ", ".join(f"{counts[kind]} {kind}" for kind in ("caught", "timeout"))
    print(
        f"{len(results)} mutants: {shown}, {counts['SURVIVED']} survived, {counts['error']} errors;"
        f" {time.monotonic() - began:.0f} s"
    )
    return 1 if counts["SURVIVED"] or counts["error"] else 0


def find(mutant: Mutant) -> pathlib.Path:
    """The file that holds a mutant's text, which must occur once in all files."""
    found = Counter(
        {
            path: path.read_text().count(mutant.text)
            for folder in FOLDERS
            for path in sorted((ROOT / folder).rglob("*.py"))
        }
    )
    if found.total() != 1:
        places = [str(path.relative_to(ROOT)) for path in found if found[path]]
        raise SystemExit(
            f"error: {mutant.name}: {mutant.text!r} must occur once, got {found.total()}, {places}"
        )
    return found.most_common(1)[0][0]


def check(mutants: Sequence[Mutant]) -> int:
    """Runs the tests of all mutants once, without a fault, and returns pytest's exit code."""
    paths = sorted({path for mutant in mutants for path in mutant.selection()[0]})
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    return int(pytest.main(["-q", "-p", "no:cacheprovider", *paths], plugins=[Selected(mutants)]))


def run(mutant: Mutant, file: pathlib.Path) -> dict[str, Any]:
    """Runs the tests of one mutant and says how they ended."""
    began = time.monotonic()
    with broken(mutant, file):
        code, output = _run_tests(shlex.split(mutant.tests))
    kinds = {None: "timeout", 0: "SURVIVED", 1: "caught"}
    outcome = kinds.get(code, "error")
    failures = [line for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return {
        "name": mutant.name,
        "outcome": outcome,
        "exit_code": code,
        "seconds": round(time.monotonic() - began, 1),
        "file": str(file.relative_to(ROOT)),
        "tests": mutant.tests,
        "seen_by": failures[0].split(" ", 1)[1].partition(" - ")[0] if failures else "",
        "output": output[-3000:] if outcome == "error" else "",
    }


@contextlib.contextmanager
def broken(mutant: Mutant, file: pathlib.Path) -> Iterator[None]:
    """Puts the fault into its file, and takes it out again whatever happens."""
    before, times = file.read_bytes(), file.stat()
    try:
        file.write_bytes(before.replace(mutant.text.encode(), mutant.replacement.encode()))
        yield
    finally:
        file.write_bytes(before)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # compiled files stay valid


def _run_tests(arguments: Sequence[str]) -> tuple[int | None, str]:
    """Exit code, None where there was no end, and output."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *PYTEST, "--tb=line", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=SECONDS)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        return None, ""
    finally:
        if process.poll() is None:  # with what it started itself
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def _refuse_changes() -> None:
    status = subprocess.run(
        ["git", "status", "--porcelain", "--", *FOLDERS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    if status.stdout:
        raise SystemExit(f"error: commit or undo these changes first:\n{status.stdout.rstrip()}")


def _stop(*_: object) -> None:
    raise SystemExit("error: asked to stop")


if __name__ == "__main__":
    sys.exit(main())
