"""Protocols: the interfaces between the parts of flows, of VAEs and of training.

Nothing derives from these classes. A module of another library or of a user fits wherever it has
the attributes and the methods listed here, with the shapes that their docstrings state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import distrax
import jax
from jaxtyping import Array, Float, Int, UInt8

__all__ = [
    "AutoregressiveNetwork",
    "ContractiveNetwork",
    "Flow",
    "FlowStep",
    "Likelihood",
    "Logger",
    "Loss",
    "Posterior",
    "Preprocessor",
    "Prior",
    "Quantizer",
    "Transformer",
    "VelocityNetwork",
]

PyTree = Any

ValueKind = Literal["binary", "levels", "reals"]
"""What a preprocessor makes of images: zeros and ones; the centres of 2^bits cells, without noise;
or real numbers. A likelihood is one of values of one kind: a probability of a value that is binary
or a level, a density of one that is real."""


class Flow(Protocol):
    """A Flax module that owns the parameters of a bijection between noise and data.

    Attributes:
      event_shape: Shape of the data.
      noise_shape: Shape of the noise, of as many dimensions in all.
      num_classes: Number of classes where the context is an integer label, otherwise None.
      context_ndims: Number of trailing axes that make a context that isn't a label.
    """

    event_shape: tuple[int, ...]
    noise_shape: tuple[int, ...]
    num_classes: int | None
    context_ndims: int

    def __call__(
        self, *, context: Array | None = None, data: Float[Array, "batch *event"] | None = None
    ) -> distrax.Bijector:
        """Builds the bijector, forward from noise to data, with the batch axes of the context.

        Args:
          context: Labels ``[*batch]`` or floats ``[*batch, *context]``, or None.
          data: In `init`, the batch from which data-dependent parameters are initialised.
        """


class FlowStep(Protocol):
    """One of K equal steps of a `vaeflow.flows.StackedFlow`: a frozen dataclass, equal by value.

    Attributes:
      event_ndims: Number of trailing axes that make an event.
      collections: Names of the Flax collections of its variables, "params" first.
    """

    event_ndims: int
    collections: tuple[str, ...]

    def init(self, key: Array, data: Array, context: Array | None) -> PyTree:
        """Creates the variables of one step, ``{"params": ..., ...}``, from its input."""

    def __call__(self, variables: PyTree, context: Array | None) -> distrax.Bijector:
        """Builds the bijector of one step."""


class Transformer(Protocol):
    """A family of increasing maps of the real line: a frozen dataclass, equal by value.

    Attributes:
      num_parameters: Number of parameters of one map.
    """

    @property
    def num_parameters(self) -> int:
        """Number of parameters of one map."""

    def __call__(
        self, raw: Float[Array, "*batch_and_event parameters"], event_ndims: int = 1
    ) -> distrax.Bijector:
        """Builds the bijector that maps each dimension of an event by its member of the family.

        Args:
          raw: Any real numbers, as a network returns them, of shape
            ``[*batch, *event, parameters]``; at zero the map is the identity.
          event_ndims: Number of trailing axes of the input that make an event.
        """


class AutoregressiveNetwork(Protocol):
    """A hashable network whose outputs for a dimension depend on the dimensions before it alone.

    `vaeflow.nn.MaskedMLP` is one. Every method takes the variables and a context, which is
    ``[batch, feature]`` or None.

    Attributes:
      dimension: Number of dimensions of a vector.
      num_parameters: Number of outputs for each dimension.
    """

    dimension: int
    num_parameters: int

    def apply(self, variables: PyTree, x: Array, context: Array | None) -> Array:
        """Maps ``[batch, dimension]`` to ``[batch, dimension, parameters]``."""

    def solve(
        self,
        variables: PyTree,
        context: Array | None,
        solve_one: Callable[[Array, PyTree], tuple[Array, PyTree]],
        inputs: PyTree,
        num_rows: int,
    ) -> PyTree:
        """Finds x with x_i = solve_one(outputs for dimension i at x, inputs_i); returns results."""

    def solve_transposed(
        self,
        variables: PyTree,
        context: Array | None,
        x: Array,
        solve_one: Callable[[Array, PyTree], tuple[Array, PyTree]],
        inputs: PyTree,
    ) -> PyTree:
        """Finds c with c_i = solve_one(pullback of c to x_i, inputs_i); returns results."""


class ContractiveNetwork(Protocol):
    """A hashable network with a Lipschitz constant below one at all values of its variables.

    `vaeflow.nn.LipschitzMLP` is one. It is applied in two parts, of which the first is computed
    once where the second is computed in a loop.

    Attributes:
      features: Number of outputs, and of inputs: the length of an event's last axis.
    """

    features: int

    def normalized(self, variables: PyTree) -> PyTree:
        """Bounds the network, as far as that doesn't depend on its input."""

    def apply_normalized(self, normalized: PyTree, x: Array, context: Array | None) -> Array:
        """Maps ``[batch, *event]`` to the same shape, with a context ``[batch, *context]``."""


class VelocityNetwork(Protocol):
    """A hashable network that gives each vector a velocity, such as `vaeflow.nn.TimeDependentMLP`.

    Attributes:
      dimension: Number of dimensions of a vector.
    """

    dimension: int

    def apply(
        self,
        variables: PyTree,
        x: Float[Array, "batch dimension"],
        time: Float[Array, " batch"],
        context: Float[Array, "batch feature"] | None,
    ) -> Float[Array, "batch dimension"]:
        """Computes the velocities; those of one row depend on that row alone."""


class Prior(Protocol):
    """A Flax module that returns a distribution: a base of a flow, or p(z) of a VAE.

    Attributes:
      needs_labels: Whether the context must hold integer labels; otherwise it is ignored or None.
    """

    needs_labels: bool

    def __call__(
        self,
        *,
        context: Array | None = None,
        batch_shape: tuple[int, ...] = (),
        temperature: float = 1.0,
        encoder: Callable[[Array], distrax.Distribution] | None = None,
    ) -> distrax.Distribution:
        """Builds the distribution.

        Args:
          context: Labels ``[*batch]``, or None.
          batch_shape: Batch axes of the distribution, where the context doesn't give them.
          temperature: Factor of the deviations, or of the samples' distances from their centre.
          encoder: q(z | x) as a function of observed values, for a `vaeflow.bases.VampPrior`;
            ignored by others.
        """

    def initialize(
        self,
        values: Float[Array, "batch height width channel"],
        latents: Float[Array, "batch latent"],
        *,
        context: Array | None,
    ) -> None:
        """Creates data-dependent parameters, if any; `init` of a `vaeflow.models.VAE` calls it.

        Args:
          values: The first batch of observed values.
          latents: A sample of the posterior of each.
          context: Labels ``[batch]`` where the prior needs them, or None.
        """


class Posterior(Protocol):
    """A Flax module from features of an image to q(z | x): a head of `vaeflow.encoders`.

    Attributes:
      num_latents: Number of latents.
      has_density: Whether samples have a density, as a bound on the likelihood needs.
    """

    num_latents: int
    has_density: bool

    def __call__(self, features: Float[Array, "batch feature"]) -> distrax.Distribution:
        """Builds ``[batch]`` distributions of events ``[latent]``, in float32 or wider."""

    def standard(self, temperature: float = 1.0) -> distrax.Distribution:
        """Builds the default prior, without batch axes, its deviations times a temperature."""

    def location(self, distribution: distrax.Distribution) -> Float[Array, "batch latent"]:
        """Computes one vector to represent a distribution that the call returned: its mean."""


class Likelihood(Protocol):
    """A Flax module from a decoder's outputs to p(x | z): a head of `vaeflow.decoders`.

    Attributes:
      num_parameters: Number of outputs for each dimension of an image.
      value_kind: The kind of the values that it is a distribution of; where they are levels, the
        likelihood has a number of `bits` too. Models don't check a likelihood without.
    """

    value_kind: ValueKind

    @property
    def num_parameters(self) -> int:
        """Number of outputs for each dimension of an image."""

    def __call__(
        self, numbers: Float[Array, "*batch height width channel parameter"]
    ) -> distrax.Distribution:
        """Builds ``[*batch]`` distributions of events ``[height, width, channel]``."""

    def initial(
        self, data: Float[Array, "rows height width channel"]
    ) -> Float[Array, "height width channel parameter"]:
        """Computes the outputs whose distribution is closest to the first batch."""


class Preprocessor(Protocol):
    """A Flax module between uint8 images and the values that a model is a density of.

    Attributes:
      bits: Number of bits of each dimension that are kept, 1 to 8.
      value_kind: The kind of the values. Models don't check a preprocessor without.
    """

    bits: int
    value_kind: ValueKind

    def __call__(
        self, images: UInt8[Array, "batch height width channel"], keys: Array
    ) -> tuple[Float[Array, "batch height width channel"], Float[Array, " batch"]]:
        """Computes values and the log-det, in nats, that their log-density is short of the images'.

        Args:
          images: Images of dtype uint8.
          keys: A typed key for each row, ``[batch]``; ignored where there is no noise.
        """

    def quantize(
        self, values: Float[Array, "*batch height width channel"]
    ) -> UInt8[Array, "*batch height width channel"]:
        """Maps values, or their means, to images."""


class Quantizer(Protocol):
    """A Flax module from features to the codes of one or several codebooks.

    Attributes:
      num_codes: Number of codes of a codebook.
      code_shape: Shape of the indices of one latent: () for a single codebook.
    """

    @property
    def num_codes(self) -> int:
        """Number of codes of a codebook."""

    @property
    def code_shape(self) -> tuple[int, ...]:
        """Shape of the indices of one latent."""

    def __call__(
        self,
        features: Float[Array, "batch *positions channel"],
        rng: Array | None = None,
        *,
        axis: Any = ...,
        train: bool = False,
    ) -> Any:
        """Quantises features: returns a `vaeflow.quantizers.Quantized`.

        Args:
          features: A batch of feature vectors, any number of them an example.
          rng: A typed key, or one for each row, where training is random.
          axis: A `vaeflow.Axis`, by which the batch is divided.
          train: Whether codes are learned and drawn as in training.
        """

    def lookup(self, indices: Int[Array, "*batch_and_codebooks"]) -> Float[Array, "*batch channel"]:
        """Returns the values of codes; NaN for an index out of range."""


class Aux(NamedTuple):
    """The second result of a loss.

    Attributes:
      metrics: Scalars by name, each a mean over the rows that the loss was given.
      state: Updated mutable Flax collections by name; empty where there are none.
    """

    metrics: dict[str, jax.Array]
    state: dict[str, Any]


class Loss(Protocol):
    """A pure function of a model, its variables, a batch and a key: see `vaeflow.losses`."""

    def __call__(
        self,
        model: Any,
        variables: dict[str, Any],
        batch: dict[str, Any],
        rng: Array,
        *,
        axis: Any = ...,
        train: bool = True,
        **weights: Any,
    ) -> tuple[Float[Array, ""], Aux]:
        """Computes the scalar to minimise, and the metrics.

        Args:
          model: The Flax module.
          variables: Its variables.
          batch: Arrays by name, each with the rows of the batch first.
          rng: A typed key, or one for each row.
          axis: A `vaeflow.Axis`, by which the batch is divided.
          train: Whether the model behaves as in training.
          **weights: Weights of terms, as numbers or traced scalars, and other options.
        """


class Logger(Protocol):
    """A destination of the metrics of a run: a file, a database, a service.

    `vaeflow.training.train` opens it on the first host, and calls it from there alone.
    """

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds the metrics of a step; it may hold them back until `flush`.

        Args:
          step: The number of updates made, larger at each call.
          metrics: Numbers by name, of which some may be infinite or NaN.
        """

    def flush(self) -> None:
        """Writes what is held back.

        It is called before each checkpoint, and now and then between them. A session that goes on
        from a checkpoint writes the steps after it again, with the same values.
        """

    def close(self) -> None:
        """Flushes and releases what is held, at the end of a session, failed or not."""
