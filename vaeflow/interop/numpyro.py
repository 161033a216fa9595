"""NumPyro: distributions, transforms, and guides whose posterior is a flow.

::

    with numpyro.plate("row", 100):
        numpyro.sample("x", as_distribution(density), obs=x)

    guide = FlowGuide(model, vf.flows.NeuralSplineFlow((10,)))
    result = SVI(model, guide, numpyro.optim.Adam(1e-3), Trace_ELBO()).run(key, 1000)
    neutra = NeuTraReparam(guide, result.params)
    mcmc = MCMC(NUTS(neutra.reparam(model)), num_warmup=500, num_samples=1000)

It needs the extra ``vaeflow[interop]``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vaeflow import distributions
from vaeflow._util.checks import check_part
from vaeflow._util.files import optional_import
from vaeflow.interop._facts import Bounds, domain_and_range, is_reparameterized, support
from vaeflow.interop._one_pass import OnePass
from vaeflow.models.preprocessing import FLOW_ATTRIBUTES

_needs = functools.partial(optional_import, user="vaeflow.interop.numpyro", extra="interop")
numpyro = _needs("numpyro")
dist = _needs("numpyro.distributions")
constraints = _needs("numpyro.distributions.constraints")
autoguide = _needs("numpyro.infer.autoguide")

__all__ = ["FlowGuide", "as_distribution", "as_transform"]

Constraint = constraints.Constraint


def as_distribution(
    distribution: distrax.Distribution, *, support: Constraint | None = None
) -> dist.Distribution:
    """Wraps a distribution for NumPyro: for models, guides, plates, NUTS and SVI.

    Batch and event shapes, log-densities in nats and samples are those of the distribution. The
    support of a continuous one follows from its class, and that of a transformed one from the range
    of its bijector: an interval where that is bounded, so that NUTS and SVI work on the reals
    behind it. Sampling a transformed distribution gives its log-density in the same pass, without
    an inverse.

    The result is a pytree, whose leaves are those of the distribution.

    Args:
      distribution: A distribution of distrax or of this package, such as ``FlowModel(flow)``
        returns.
      support: The support; None for that of the class.

    Raises:
      ValueError: If it isn't a distribution, or its support is unknown and not given.
    """
    if not isinstance(distribution, distrax.Distribution):
        raise ValueError(
            f"distribution must be one of distrax or vaeflow, got a {type(distribution).__name__}"
        )
    if support is None and _support(distribution) is None:
        raise ValueError(
            f"support must be given for {distribution.name}, whose support isn't known from its "
            "class; got None, allowed is a constraint of numpyro.distributions.constraints"
        )
    return _Distribution(distribution, support)


def as_transform(
    bijector: distrax.Bijector,
    *,
    domain: Constraint | None = None,
    codomain: Constraint | None = None,
) -> dist.transforms.Transform:
    """Wraps a bijector for NumPyro.

    The value and the log-determinant of an array are computed in one pass, in either direction.
    Domain and codomain are the reals, and an interval where the bijector maps the reals onto one or
    back. The result is a pytree, whose leaves are those of the bijector.

    Args:
      bijector: A bijector of distrax or of this package; its forward direction is that of the
        transform.
      domain: The domain; None for that of the class.
      codomain: The codomain, likewise; both or neither must be given.

    Raises:
      ValueError: If it isn't a bijector, or the domain and the codomain are unknown and not given.
    """
    if not isinstance(bijector, distrax.Bijector):
        raise ValueError(
            f"bijector must be one of distrax or vaeflow, got a {type(bijector).__name__}"
        )
    if (domain is None) != (codomain is None):
        raise ValueError(
            f"domain and codomain must be given together, got domain={domain} and "
            f"codomain={codomain}"
        )
    if domain is None and domain_and_range(bijector) is None:
        raise ValueError(
            f"domain and codomain must be given for {bijector.name}, whose range isn't known from "
            "its class; got None, allowed are constraints of numpyro.distributions.constraints"
        )
    return _Transform(bijector, domain, codomain)


class _Distribution(dist.Distribution):
    """A distribution of distrax as one of NumPyro."""

    pytree_data_fields = ("distribution", "given")

    def __init__(self, distribution: distrax.Distribution, given: Constraint | None):
        self.distribution = distribution
        self.given = given
        super().__init__(tuple(distribution.batch_shape), tuple(distribution.event_shape))

    @property
    def support(self) -> Constraint:
        """The given support, or that of the class."""
        return _support(self.distribution) if self.given is None else self.given

    @property
    def has_rsample(self) -> bool:
        """Whether samples are known to be differentiable in the parameters."""
        return is_reparameterized(self.distribution)

    def rsample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Samples that are differentiable in the parameters."""
        if not self.has_rsample:
            raise NotImplementedError(f"samples of {self.distribution.name} aren't reparameterised")
        return self.sample(key, sample_shape)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Samples ``[*sample, *batch, *event]``."""
        return self.distribution.sample(seed=key, sample_shape=tuple(sample_shape))

    def sample_with_intermediates(
        self, key: Array, sample_shape: tuple[int, ...] = ()
    ) -> tuple[Array, list[Array]]:
        """Samples, with the log-densities of the samples."""
        value, log_prob = self.distribution.sample_and_log_prob(
            seed=key, sample_shape=tuple(sample_shape)
        )
        return value, [log_prob]

    def log_prob(self, value: Array, intermediates: list[Array] | None = None) -> Array:
        """Computes the log-density in nats."""
        if intermediates:
            return intermediates[0]
        return self.distribution.log_prob(jnp.asarray(value))

    @property
    def mean(self) -> Array:
        """The mean, where the distribution has one in closed form."""
        return self.distribution.mean()

    @property
    def variance(self) -> Array:
        """The variance, where the distribution has one in closed form."""
        return self.distribution.variance()


class _Transform(dist.transforms.Transform):
    """A bijector of distrax as a transform of NumPyro."""

    def __init__(
        self, bijector: distrax.Bijector, domain: Constraint | None, codomain: Constraint | None
    ):
        self.bijector = bijector
        self._given = domain, codomain
        self._one_pass = OnePass(bijector)

    @property
    def domain(self) -> Constraint:
        """The values that it maps from."""
        return self._given[0] or _constraint(
            domain_and_range(self.bijector)[0], self.bijector.event_ndims_in
        )

    @property
    def codomain(self) -> Constraint:
        """The values that it maps to."""
        return self._given[1] or _constraint(
            domain_and_range(self.bijector)[1], self.bijector.event_ndims_out
        )

    def __call__(self, x: Array) -> Array:
        """Computes y = f(x)."""
        return self._one_pass.forward(x)

    def _inverse(self, y: Array) -> Array:
        return self._one_pass.inverse(y)

    def call_with_intermediates(self, x: Array) -> tuple[Array, Array]:
        """Computes y = f(x), and log|det df/dx| for `log_abs_det_jacobian`."""
        return self.bijector.forward_and_log_det(x)

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: Any = None) -> Array:
        """Computes log|det df/dx| in nats."""
        return self._one_pass.log_det(x, y) if intermediates is None else intermediates

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the result."""
        return _shape(self.bijector.forward, shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the result of the inverse."""
        return _shape(self.bijector.inverse, shape)

    def tree_flatten(self):
        """Splits off the bijector and the constraints."""
        return (self.bijector, *self._given), ((), {})

    @classmethod
    def tree_unflatten(cls, aux_data, params):
        """Rebuilds the transform."""
        del aux_data
        return cls(*params)

    def eq(self, other: object, static: bool = False) -> Any:
        """Whether both have equal static parts and equal arrays; if static, the very same."""
        if not isinstance(other, _Transform):
            return False
        (mine, of_mine), (theirs, of_theirs) = jax.tree.flatten(self), jax.tree.flatten(other)
        if of_mine != of_theirs:
            return False
        pairs = list(zip(mine, theirs, strict=True))
        if static or any(jnp.shape(one) != jnp.shape(two) for one, two in pairs):
            return all(one is two for one, two in pairs)
        return jnp.all(jnp.asarray([jnp.all(one == two) for one, two in pairs]))


class FlowGuide(autoguide.AutoContinuous):
    """A guide whose posterior is a flow: the unconstrained latents are f(z) for standard normal z.

    It is trained by `numpyro.infer.SVI`; a step passes the flow forward, from noise to latents, and
    doesn't invert it, so that a flow which is cheap in that direction, or both, suits. The
    parameters of the flow are one param site, ``auto_flow$params``. They start where the flow does,
    as a rule near the identity and so with latents near standard normal.

    With its trained parameters, `numpyro.infer.reparam.NeuTraReparam` gives a model whose latents
    are the noise, for NUTS. Each gradient there is one pass through the flow.

    Other collections of the flow's variables, such as permutations, are constants, which follow
    from the flow and the seed: a guide made with the same can take the parameters of another.

    Source of sampling in the noise: Hoffman et al. 2019, "NeuTra-lizing bad geometry in Hamiltonian
    Monte Carlo using neural transport".
    """

    def __init__(
        self,
        model: Callable[..., Any],
        flow: nn.Module,
        *,
        prefix: str = "auto",
        seed: int = 0,
        init_loc_fn: Callable[..., Any] = numpyro.infer.init_to_uniform,
    ):
        """Builds the guide.

        Args:
          model: A NumPyro model of continuous latents.
          flow: A module of `vaeflow.flows` over vectors, without a context, with as many dimensions
            as the unconstrained latents of the model.
          prefix: Prefix of the guide's sites.
          seed: Seed of the flow's initial variables.
          init_loc_fn: As in other guides of NumPyro: values at which the model is inspected.

        Raises:
          ValueError: If the flow isn't one, or needs labels.
        """
        check_part("flow", flow, "a flow", FLOW_ATTRIBUTES)
        if flow.num_classes is not None:
            raise ValueError(
                f"flow must be one without a context, got num_classes={flow.num_classes}"
            )
        self.flow = flow
        self.seed = seed
        super().__init__(model, prefix=prefix, init_loc_fn=init_loc_fn)

    @functools.cached_property
    def _initial(self) -> dict[str, Any]:
        """The flow's initial variables; known numbers, even where the guide is traced."""
        with jax.ensure_compile_time_eval():
            return jax.jit(self.flow.init)(jax.random.key(self.seed))

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        if tuple(self.flow.event_shape) != (self.latent_dim,):
            sizes = {name: jnp.shape(value) for name, value in self._init_locs.items()}
            raise ValueError(
                f"flow must have event_shape=({self.latent_dim},), that of the model's "
                f"unconstrained latents {sizes}, got {tuple(self.flow.event_shape)}"
            )

    def _get_posterior(self) -> dist.Distribution:
        constants = {name: tree for name, tree in self._initial.items() if name != "params"}
        params = numpyro.param(f"{self.prefix}_flow$params", self._initial["params"])
        bijector = self.flow.apply({"params": params, **constants})
        reals = constraints.real_vector
        return dist.TransformedDistribution(
            self.get_base_dist(), as_transform(bijector, domain=reals, codomain=reals)
        )

    def get_base_dist(self) -> dist.Distribution:
        """The distribution of the noise: a standard normal."""
        return dist.Normal(jnp.zeros(self.latent_dim), 1).to_event(1)


def _constraint(bounds: Bounds, event_ndims: int) -> Constraint:
    lower, upper = bounds
    if lower is None and upper is None:
        base = constraints.real
    elif upper is None:
        zero = isinstance(lower, float) and lower == 0
        base = constraints.positive if zero else constraints.greater_than(lower)
    elif lower is None:
        base = constraints.less_than(upper)
    else:
        unit = (lower, upper) == (0.0, 1.0) if isinstance(lower, float) else False
        base = constraints.unit_interval if unit else constraints.interval(lower, upper)
    return constraints.independent(base, event_ndims) if event_ndims else base


def _support(distribution: distrax.Distribution) -> Constraint | None:
    """The support of a distribution as a constraint, or None where it isn't known."""
    if isinstance(distribution, distrax.Independent):
        inside = _support(distribution.distribution)
        added = len(distribution.event_shape) - len(distribution.distribution.event_shape)
        return None if inside is None else constraints.independent(inside, added)
    event_ndims = len(distribution.event_shape)
    bounds = support(distribution)
    if bounds is not None:
        return _constraint(bounds, event_ndims)
    for kinds, make in _OTHERS:
        if isinstance(distribution, kinds):
            return make(distribution)
    return None


_OTHERS: tuple[tuple[Any, Callable[[Any], Constraint]], ...] = (
    (distrax.Bernoulli, lambda _: constraints.boolean),
    (
        distributions.Bernoulli,
        lambda each: constraints.independent(constraints.boolean, len(each.event_shape)),
    ),
    (
        distrax.Categorical,
        lambda each: constraints.integer_interval(0, each.num_categories - 1),
    ),
    ((distrax.Dirichlet, distributions.Concrete), lambda _: constraints.simplex),
)
"""Supports that aren't intervals."""


def _shape(method: Callable[[Array], Array], shape: tuple[int, ...]) -> tuple[int, ...]:
    return jax.eval_shape(method, jax.ShapeDtypeStruct(shape, jnp.float32)).shape
