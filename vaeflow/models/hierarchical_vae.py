"""The ladder VAE: a chain of levels of latents, inferred bottom-up and corrected top-down.

Source: Sonderby, Raiko, Maaloe, Sonderby & Winther 2016, "Ladder variational autoencoders".
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from vaeflow._util.arrays import check_event_shape, row_keys
from vaeflow._util.checks import as_array, bound, check_count, encode_labels
from vaeflow.bijectors import Conditioner
from vaeflow.distributions import HierarchicalPrior, standard_normal
from vaeflow.distributions.gaussian import Normal, product_of_normals
from vaeflow.distributions.grouped import WHOLE, per_dim_kl
from vaeflow.encoders import DenseEncoder, DiagonalGaussianPosterior
from vaeflow.encoders.posteriors import positive
from vaeflow.models.base import Latents, LatentVariableModel
from vaeflow.typing import Preprocessor


class GaussianNetwork(nn.Module):
    """A multilayer perceptron to the means and raw deviations of normals, concatenated.

    Attributes:
      num_latents: Number of latents, each with a mean and a deviation.
      hidden_sizes: Sizes of the hidden layers, each followed by the activation.
      activation: The nonlinearity.
    """

    num_latents: int
    hidden_sizes: Sequence[int]
    activation: Callable[[Array], Array] = nn.tanh

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, "*batch input"],
        context: Float[Array, "*batch condition"] | None = None,
    ) -> Float[Array, "*batch number"]:
        """Maps vectors to two numbers for each latent, given a context if there is one."""
        x = inputs
        if context is not None:
            context = jnp.broadcast_to(context, (*x.shape[:-1], context.shape[-1]))
            x = jnp.concatenate([x, context.astype(x.dtype)], axis=-1)
        for size in self.hidden_sizes:
            x = self.activation(nn.Dense(size)(x))
        mean = nn.Dense(self.num_latents, name="mean")(x)
        return jnp.concatenate([mean, nn.Dense(self.num_latents, name="scale")(x)], axis=-1)


def normals(
    numbers: Float[Array, "*batch number"], temperature: float = 1.0
) -> distrax.Independent:
    """Builds the normals of a `GaussianNetwork`'s outputs, deviations times a temperature."""
    mean, raw = jnp.split(numbers, 2, axis=-1)
    return distrax.Independent(Normal(mean, temperature * positive(raw)), 1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GaussianConditional:
    """p(z_i | z_(i+1)): normals whose parameters a network computes, as a pytree.

    Attributes:
      network: A `GaussianNetwork` with its parameters and context.
      temperature: Factor of the deviations.
    """

    network: Conditioner
    temperature: Float[Array, ""] | float = 1.0

    def __call__(self, above: Float[Array, "*batch latent"]) -> distrax.Independent:
        """Builds the distributions given the level above, with its batch axes."""
        return normals(self.network(above), self.temperature)


class HierarchicalVAE(LatentVariableModel):
    """A ladder of n levels: p(x, z) = p(x | z_1) p(z_1 | z_2) ... p(z_(n-1) | z_n) p(z_n).

    Inference is bottom-up, then top-down. Bottom-up, each level gets a message from the image,
    normals N(m_i(x), s_i(x)^2). The topmost is q(z_n | x). Top-down, that of each other level is
    multiplied with its prior, whose precisions add: q(z_i | z_(i+1), x) is proportional to
    p(z_i | z_(i+1)) N(z_i; m_i(x), s_i(x)^2). If the message is the likelihood of z_i this is
    Bayes' rule; if it is flat, the posterior is the prior and its KL zero.

    Posteriors are normals given the level above, and so their KLs are exact given the samples
    above. With one level it is a `VAE` with a diagonal posterior. All levels are one vector,
    z_1 first; they are the groups "level_1", ..., "level_n" of the latents that `infer` returns,
    and so of the metrics of losses. q(z | x) isn't available as one distribution, so objectives
    that need it raise ValueError; the table in the README lists them.

    Source: Sonderby, Raiko, Maaloe, Sonderby & Winther 2016, "Ladder variational autoencoders",
    section 2, without batch normalization.

    Attributes:
      network: From images to features, such as `vaeflow.encoders.DenseEncoder`.
      latent_sizes: Numbers of latents of the levels, from the one next to the image up.
      decoder: p(x | z_1): a `vaeflow.decoders.Decoder`.
      observation: Preprocessing of uint8 images, as for `VAE`.
      hidden_sizes: Sizes of the hidden layers between each two levels, in either direction.
      activation: The nonlinearity of these layers.
      num_classes: Number of classes where encoder, decoder and levels are given labels, otherwise
        None. The prior of the topmost level is shared by all classes.
    """

    network: nn.Module
    latent_sizes: Sequence[int]
    decoder: nn.Module
    observation: Preprocessor
    hidden_sizes: Sequence[int] = (200,)
    activation: Callable[[Array], Array] = nn.tanh
    num_classes: int | None = None

    def setup(self):
        """Creates the networks between the levels.

        Raises:
          ValueError: If there is no level, or one has no latents.
        """
        if not self.latent_sizes or min(self.latent_sizes) < 1:
            raise ValueError(
                f"latent_sizes must hold numbers of at least 1, got {tuple(self.latent_sizes)}"
            )
        self.messages = [DiagonalGaussianPosterior(size) for size in self.latent_sizes]
        self.up = [
            DenseEncoder(self.hidden_sizes, activation=self.activation)
            for _ in self.latent_sizes[1:]
        ]
        self.down = [
            GaussianNetwork(size, hidden_sizes=self.hidden_sizes, activation=self.activation)
            for size in self.latent_sizes[:-1]
        ]

    @bound
    def __call__(
        self, images: UInt8[Array, "batch height width channel"], *, context: Array | None = None
    ) -> Latents:
        """Runs inference and the decoder once; `init` calls it with the first batch.

        Arguments and keys are as for `VAE`.
        """
        images = as_array("images", images)
        keys = row_keys(
            self.make_rng("params" if self.is_initializing() else "sample"), images.shape[0]
        )
        values = self.observe(images, keys).values
        latents = self.infer(values, keys, context=context)
        labels = encode_labels(context, self.num_classes)
        self.decoder(self.split(latents.z)["level_1"], context=labels, data=values)
        return latents

    @property
    def levels(self) -> dict[str, int]:
        """Numbers of latents of the levels by name, from the one next to the image up."""
        return {f"level_{number}": size for number, size in enumerate(self.latent_sizes, 1)}

    @property
    def num_latents(self) -> int:
        """Number of latents of all levels."""
        return sum(self.latent_sizes)

    def split(self, z: Float[Array, "*batch latent"]) -> dict[str, Float[Array, "*batch part"]]:
        """Splits latents by name of the level.

        Raises:
          ValueError: If the number of latents isn't that of all levels.
        """
        check_event_shape("latents", z.shape, (self.num_latents,))
        ends = list(itertools.accumulate(self.latent_sizes))[:-1]
        return dict(zip(self.levels, jnp.split(z, ends, axis=-1), strict=True))

    @bound
    def prior(self, *, context: Array | None = None, temperature: float = 1.0) -> HierarchicalPrior:
        """Builds p(z) of all levels as one distribution.

        Args:
          context: Labels ``[*batch]``, or None.
          temperature: Factor of the deviations of every level.
        """
        labels = encode_labels(context, self.num_classes)
        batch = () if labels is None else labels.shape[:-1]
        return HierarchicalPrior(
            standard_normal((self.latent_sizes[-1],), batch, temperature),
            [
                GaussianConditional(
                    Conditioner(network.clone(parent=None), network.variables, labels), temperature
                )
                for network in self.down
            ],
        )

    @bound
    def likelihood(
        self, z: Float[Array, "*batch latent"], *, context: Array | None = None
    ) -> distrax.Distribution:
        """Builds p(x | z_1), one distribution of observed values for each z."""
        z = as_array("latents", z)
        return super().likelihood(self.split(z)["level_1"], context=context)

    @bound
    def infer(
        self,
        values: Float[Array, "batch height width channel"],
        rng: Array,
        num_samples: int = 1,
        *,
        context: Array | None = None,
    ) -> Latents:
        """Samples from the top down, with the densities under q and p.

        KLs of all levels but the topmost are averages over the samples of the levels above.

        Args:
          values: Observed values.
          rng: A typed key, or one for each row.
          num_samples: Number of samples of each row.
          context: Labels ``[batch]``, or None.
        """
        check_count("num_samples", num_samples)
        values = as_array("values", values)
        keys = row_keys(rng, values.shape[0])

        def sample(level: int, posterior: distrax.Independent) -> Array:
            shape = (num_samples, self.latent_sizes[level])
            of_level = jax.vmap(jax.random.fold_in, (0, None))(keys, level)
            noise = jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32), out_axes=1)(
                of_level
            )
            return posterior.distribution.loc + posterior.distribution.scale * noise

        levels = self._descend(values, context, sample)
        log_q, log_p, kl = {}, {}, {}
        for name, (z, posterior, prior) in levels.items():
            log_q[name], log_p[name] = posterior.log_prob(z), prior.log_prob(z)
            per_dim = per_dim_kl(posterior, prior)[WHOLE]
            kl[name] = per_dim if per_dim.ndim == 2 else jnp.mean(per_dim, axis=0)
        z = jnp.concatenate([z for z, _, _ in levels.values()], axis=-1)
        return Latents(z, log_q, log_p, kl)

    @bound
    def encode(
        self,
        images: UInt8[Array, "batch height width channel"],
        rng: Array,
        *,
        context: Array | None = None,
    ) -> Float[Array, "batch latent"]:
        """Computes the posterior means of all levels, each given the mean above it."""
        values = self.observe(images, rng).values
        levels = self._descend(values, context, lambda _, posterior: posterior.mean())
        return jnp.concatenate([z for z, _, _ in levels.values()], axis=-1)

    @bound
    def shifts(
        self,
        images: UInt8[Array, "batch height width channel"],
        rng: Array,
        *,
        context: Array | None = None,
    ) -> Float[Array, "batch latent"]:
        """Computes the difference of posterior and prior mean in deviations of the prior.

        Each level is given the means above it. As the prior of a level moves with the level above,
        a mean that varies doesn't show that its level is used; a shift that varies does, so
        `vaeflow.metrics.active_units` takes these.
        """
        values = self.observe(images, rng).values
        levels = self._descend(values, context, lambda _, posterior: posterior.mean())
        return jnp.concatenate(
            [
                (posterior.mean() - prior.mean()) / prior.stddev()
                for _, posterior, prior in levels.values()
            ],
            axis=-1,
        )

    def _descend(self, values: Array, context: Array | None, choose: Callable) -> dict[str, tuple]:
        """Computes values, posterior and prior of each level by name, z_1 first.

        Args:
          values: Observed values.
          context: Labels ``[batch]``, or None.
          choose: Computes the values of a level from its number, from 0 on, and its posterior.
        """
        values = as_array("values", values)
        labels = encode_labels(context, self.num_classes, rows=values.shape[0])
        features = self.network(values, context=labels)
        messages = [self.messages[0](features)]
        for up, message in zip(self.up, self.messages[1:], strict=True):
            features = up(features)
            messages.append(message(features))
        posterior, prior = messages[-1], standard_normal((self.latent_sizes[-1],))
        z = choose(len(messages) - 1, posterior)
        results = [(z, posterior, prior)]
        for level in reversed(range(len(self.down))):
            prior = normals(self.down[level](z, labels))
            posterior = product_of_normals(prior, messages[level])
            z = choose(level, posterior)
            results.insert(0, (z, posterior, prior))
        return dict(zip(self.levels, results, strict=True))
