"""How to build each stored model today, and what to compute of it.

The files stay as they are for ever; what is here follows the library. A model that is renamed, or
takes its options by other names, is called otherwise here, and must still fit its file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow import bases, bijectors, decoders, encoders, flows, losses, models, nn, quantizers

Outputs = dict[str, Any]

KEY = jax.random.key(11)
ROWS = 3
SHAPE = (4, 4, 1)
MAP_SHAPE = (7, 6, 1)
PAIR = {"a": (9, 8, 1), "b": (9, 8, 3)}


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).normal(size=shape).astype(np.float32)


def _images(shape: tuple[int, ...], rows: int = 8) -> np.ndarray:
    return np.random.RandomState(1).randint(0, 256, (rows, *shape)).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Golden:
    """A model that is stored.

    Attributes:
      build: Makes the model.
      inputs: What `init` takes after its key.
      outputs: Computes from the model and its variables what is stored beside the file: reals are
        compared to rounding, images to one level, other integers exactly.
      slow: Whether it is left to the slow tests.
      context: What `init` takes as a context, or None.
    """

    build: Callable[[], Any]
    inputs: tuple[Any, ...]
    outputs: Callable[[Any, Any], Outputs]
    slow: bool = False
    context: np.ndarray | None = None

    def init(self) -> Any:
        """The variables that the model has at first."""
        keywords = {} if self.context is None else {"context": self.context}
        return self.build().init(jax.random.key(2), *self.inputs, **keywords)


# Flows.


def _flow(
    make: Callable[[], Any],
    event: tuple[int, ...] = (3,),
    *,
    dequantizer: Callable[[], Any] | None = None,
    base: Callable[[], Any] | None = None,
    context: np.ndarray | None = None,
    scale: float = 1.0,
    slow: bool = False,
) -> Golden:
    """A density: log p of some rows, and what noise becomes."""
    data = scale * _normal(8, *event) if dequantizer is None else _images(event)
    given = None if context is None else context[:ROWS]

    def outputs(model: Any, variables: Any) -> Outputs:
        keys = None if dequantizer is None else KEY
        start = 0.5 * _normal(ROWS, *model.flow.noise_shape, seed=5)
        return {
            "log_prob": model.apply(variables, data[:ROWS], keys, context=given, method="log_prob"),
            "decode": model.apply(variables, start, context=given, method="decode"),
        }

    def build() -> models.FlowModel:
        return models.FlowModel(make(), dequantizer and dequantizer(), base and base())

    return Golden(build, (data,), outputs, slow, context)


LABELS = np.arange(8, dtype=np.int32) % 3
VECTORS = _normal(8, 2, seed=3)


def _glow(**options: Any) -> flows.Glow:
    return flows.Glow(SHAPE, **({"num_levels": 1, "num_steps": 2, "hidden_features": 4} | options))


def _real_nvp(shape: tuple[int, ...] = (3,), **options: Any) -> flows.RealNVP:
    return flows.RealNVP(
        shape,
        **({"num_steps": 2, "num_levels": 1, "hidden_features": 4, "num_blocks": 1} | options),
    )


def _variational() -> models.VariationalDequantizer:
    return models.VariationalDequantizer(_glow(context_ndims=3))


SPLINE = {"num_steps": 2, "num_bins": 3, "hidden_sizes": (4,)}
MASKED = {"num_steps": 2, "hidden_sizes": (4,)}


def _sylvester(basis: Callable[[], Any]) -> Golden:
    return _flow(lambda: flows.SylvesterFlow((3,), num_steps=2, basis=basis()))


FLOWS = {
    "glow": _flow(_glow, SHAPE, dequantizer=lambda: models.UniformDequantizer(bits=5)),
    "glow-levels": _flow(
        lambda: _glow(num_levels=2), SHAPE, dequantizer=models.UniformDequantizer, slow=True
    ),
    "glow-plu": _flow(lambda: _glow(plu=True), SHAPE, slow=True),
    "glow-variational": _flow(_glow, SHAPE, dequantizer=_variational),
    "glow-classes": _flow(lambda: _glow(num_classes=3), SHAPE, context=LABELS),
    "glow-unrolled": _flow(lambda: _glow(scan=False), SHAPE, slow=True),
    "glow-reversible": _flow(lambda: _glow(backward="reversible", num_steps=5), SHAPE, slow=True),
    "glow-standardized": _flow(
        lambda: flows.StandardizedFlow(_glow()), SHAPE, dequantizer=models.UniformDequantizer
    ),
    "glow-bounded": _flow(
        lambda: flows.BoundedFlow(_glow(), -0.6, 0.6), SHAPE, dequantizer=models.UniformDequantizer
    ),
    "real-nvp": _flow(_real_nvp),
    "real-nvp-image": _flow(
        lambda: _real_nvp(SHAPE), SHAPE, dequantizer=models.UniformDequantizer, slow=True
    ),
    "real-nvp-context": _flow(_real_nvp, context=VECTORS),
    "nice": _flow(lambda: flows.NICE((3,), **MASKED)),
    "spline-coupling": _flow(lambda: flows.NeuralSplineFlow((3,), **SPLINE)),
    "spline-autoregressive": _flow(
        lambda: flows.NeuralSplineFlow((3,), autoregressive=True, **SPLINE)
    ),
    "maf": _flow(lambda: flows.MaskedAutoregressiveFlow((3,), **MASKED)),
    "maf-context": _flow(lambda: flows.MaskedAutoregressiveFlow((3,), **MASKED), context=VECTORS),
    "maf-spline": _flow(
        lambda: flows.MaskedAutoregressiveFlow(
            (3,), transformer=bijectors.SplineTransformer(num_bins=3), **MASKED
        ),
        slow=True,
    ),
    "maf-classes": _flow(
        lambda: flows.MaskedAutoregressiveFlow((3,), num_classes=3, **MASKED),
        context=LABELS,
        slow=True,
    ),
    "iaf": _flow(lambda: flows.InverseAutoregressiveFlow((3,), **MASKED)),
    "block-autoregressive": _flow(
        lambda: flows.BlockAutoregressiveFlow((2,), num_steps=2, hidden_sizes=(3,)), (2,)
    ),
    "block-autoregressive-context": _flow(
        lambda: flows.BlockAutoregressiveFlow((2,), num_steps=2, hidden_sizes=(3,)),
        (2,),
        context=VECTORS,
        slow=True,
    ),
    "residual": _flow(lambda: flows.ResidualFlow((3,), num_steps=2, hidden_sizes=(4, 4))),
    "continuous": _flow(lambda: flows.ContinuousFlow((2,), hidden_sizes=(4,)), (2,)),
    "gaussianization": _flow(
        lambda: flows.GaussianizationFlow((2,), num_steps=2, num_components=3, num_reflections=1),
        (2,),
    ),
    "planar": _flow(lambda: flows.PlanarFlow((3,), num_steps=2)),
    "planar-context": _flow(
        lambda: flows.PlanarFlow((3,), num_steps=2), context=VECTORS, slow=True
    ),
    "planar-leaky": _flow(
        lambda: flows.PlanarFlow((3,), num_steps=2, negative_slope=0.1), slow=True
    ),
    "radial": _flow(lambda: flows.RadialFlow((3,), num_steps=2)),
    "sylvester-householder": _sylvester(lambda: flows.HouseholderBasis(2)),
    "sylvester-identity": _sylvester(flows.IdentityBasis),
    "sylvester-orthogonal": _sylvester(lambda: flows.OrthogonalBasis(2)),
    "standardized-vectors": _flow(
        lambda: flows.StandardizedFlow(_real_nvp(), learned=False), slow=True
    ),
    "bounded-vectors": _flow(lambda: flows.BoundedFlow(_real_nvp(), -1, 1), scale=0.2, slow=True),
    "base-diagonal": _flow(_real_nvp, base=lambda: bases.DiagonalGaussianBase((3,))),
    "base-correlated": _flow(_real_nvp, base=lambda: bases.CorrelatedGaussianBase((3,))),
    "base-labelled": _flow(
        _real_nvp, base=lambda: bases.LabelledGaussianBase((3,), num_classes=3), context=LABELS
    ),
    "base-mixture": _flow(
        _real_nvp, base=lambda: bases.GaussianMixtureBase((3,), num_components=2)
    ),
    "base-resampled": _flow(
        lambda: _real_nvp((2,)),
        (2,),
        base=lambda: bases.ResampledBase((2,), hidden_sizes=(4,), truncation=5, log_points=6),
    ),
    "base-box": _flow(_real_nvp, base=lambda: bases.BoxBase((3,), low=-9.0, high=9.0), slow=True),
}

# Latents.


def _decoder(likelihood: Callable[[], Any] = decoders.BernoulliLikelihood) -> decoders.Decoder:
    return decoders.Decoder(decoders.DenseDecoder((5,)), likelihood(), SHAPE)


def _encoder(posterior: Any) -> encoders.Encoder:
    return encoders.Encoder(encoders.DenseEncoder((5,)), posterior)


def _vae(
    posterior: Callable[[], Any] = lambda: encoders.DiagonalGaussianPosterior(2),
    likelihood: Callable[[], Any] = decoders.BernoulliLikelihood,
    observation: Callable[[], Any] = models.Binarizer,
    prior: Callable[[], Any] | None = None,
    classes: int | None = None,
) -> models.VAE:
    return models.VAE(
        _encoder(posterior()), _decoder(likelihood), observation(), prior and prior(), classes
    )


def _latent(
    build: Callable[[], Any],
    *,
    shape: tuple[int, int, int] = SHAPE,
    classes: int | None = None,
    slow: bool = False,
) -> Golden:
    """A bound with its parts, the middle of the posterior, p(x | z) and p(z)."""
    images = _images(shape)
    labels = None if classes is None else np.arange(8, dtype=np.int32) % classes

    def outputs(model: Any, variables: Any) -> Outputs:
        some, given = images[:ROWS], None if labels is None else labels[:ROWS]
        batch = {"image": some} | ({} if given is None else {"label": given})
        condition = None if given is None else "label"
        loss, aux = losses.elbo(model, variables, batch, KEY, context_key=condition)
        z = jax.nn.softmax(_normal(ROWS, model.num_latents, seed=4))
        values = model.apply(variables, some, KEY, method="observe").values
        likelihood = model.apply(variables, z, context=given, method="likelihood")
        found = {
            "loss": loss,
            "encode": model.apply(variables, some, KEY, context=given, method="encode"),
            "log_likelihood": likelihood.log_prob(values),
        }
        found |= {name.replace("/", "_"): value for name, value in aux.metrics.items()}
        if not isinstance(getattr(model, "encoder", None), encoders.Encoder) or not isinstance(
            model.encoder.posterior, encoders.GroupedPosterior
        ):
            found["log_prior"] = model.apply(variables, context=given, method="prior").log_prob(z)
        return found

    return Golden(build, (images,), outputs, slow, labels)


def _auto_encoder() -> Golden:
    def build() -> models.AutoEncoder:
        return models.AutoEncoder(
            encoders.DenseEncoder((5,)),
            2,
            _decoder(decoders.GaussianLikelihood),
            models.UniformDequantizer(),
        )

    images = _images(SHAPE)

    def outputs(model: Any, variables: Any) -> Outputs:
        batch = {"image": images[:ROWS]}
        return {
            "loss": losses.reconstruction(model, variables, batch, KEY)[0],
            "encode": model.apply(variables, images[:ROWS], KEY, method="encode"),
            "decode": model.apply(variables, _normal(ROWS, 2), method="decode"),
        }

    values = (images / 255.0 - 0.5).astype(np.float32)
    return Golden(build, (values,), outputs)


def _factor_vae() -> Golden:
    images = _images(SHAPE)

    def outputs(model: Any, variables: Any) -> Outputs:
        batch = {"image": images, "index": np.arange(8, dtype=np.int32)}
        generator, aux = losses.factor_vae(model, variables, batch, KEY)
        discriminator, _ = losses.factor_vae_discriminator(model, variables, batch, KEY)
        correlation = aux.metrics["total_correlation"]
        return {"model": generator, "discriminator": discriminator, "correlation": correlation}

    return Golden(
        lambda: models.FactorVAE(_vae(), nn.LatentDiscriminator((4, 4))), (images,), outputs
    )


def _grouped() -> models.VAE:
    return _vae(
        lambda: encoders.GroupedPosterior(
            {
                "style": encoders.DiagonalGaussianPosterior(2),
                "category": encoders.ConcretePosterior(3, temperature=0.66),
            }
        )
    )


def _hierarchical(classes: int | None = None) -> models.HierarchicalVAE:
    return models.HierarchicalVAE(
        encoders.DenseEncoder((5,)),
        (3, 2),
        _decoder(),
        models.Binarizer(),
        hidden_sizes=(4,),
        num_classes=classes,
    )


def _of_network(encoder: Any, decoder: Any) -> models.VAE:
    return models.VAE(
        encoders.Encoder(encoder, encoders.DiagonalGaussianPosterior(2)),
        decoders.Decoder(decoder, decoders.BernoulliLikelihood(), MAP_SHAPE),
        models.Binarizer(),
    )


def _flow_posterior(flow: Callable[[], Any], amortised: bool = True) -> models.VAE:
    base = encoders.DiagonalGaussianPosterior(2)
    return _vae(lambda: encoders.FlowPosterior(base, flow(), amortised))


LATENT = {
    "vae": _latent(_vae),
    "vae-full": _latent(lambda: _vae(lambda: encoders.FullGaussianPosterior(2))),
    "vae-planar": _latent(lambda: _flow_posterior(lambda: flows.PlanarFlow((2,), num_steps=2))),
    "vae-sylvester": _latent(
        lambda: _flow_posterior(
            lambda: flows.SylvesterFlow((2,), num_steps=2, basis=flows.OrthogonalBasis(2))
        ),
        slow=True,
    ),
    "vae-iaf": _latent(
        lambda: _flow_posterior(lambda: flows.InverseAutoregressiveFlow((2,), **MASKED)), slow=True
    ),
    "vae-iaf-shared": _latent(
        lambda: _flow_posterior(lambda: flows.InverseAutoregressiveFlow((2,), **MASKED), False),
        slow=True,
    ),
    "vae-vamp": _latent(
        lambda: _vae(prior=lambda: bases.VampPrior(num_components=3, image_shape=SHAPE))
    ),
    "vae-mixture": _latent(
        lambda: _vae(prior=lambda: bases.GaussianMixtureBase((2,), num_components=3))
    ),
    "vae-flow-prior": _latent(lambda: _vae(prior=lambda: models.FlowModel(_real_nvp((2,))))),
    "vae-autoregressive-prior": _latent(
        lambda: _vae(
            prior=lambda: models.FlowModel(
                flows.MaskedAutoregressiveFlow((2,), num_steps=1, hidden_sizes=(4,))
            )
        ),
        slow=True,
    ),
    "vae-classes": _latent(lambda: _vae(classes=3), classes=3),
    "vae-gaussian": _latent(
        lambda: _vae(likelihood=decoders.GaussianLikelihood, observation=models.UniformDequantizer)
    ),
    "vae-continuous-bernoulli": _latent(
        lambda: _vae(
            likelihood=decoders.ContinuousBernoulliLikelihood, observation=models.UniformDequantizer
        ),
        slow=True,
    ),
    "vae-logistic": _latent(
        lambda: _vae(
            likelihood=lambda: decoders.DiscretizedLogisticMixtureLikelihood(num_components=2),
            observation=models.Discretizer,
        )
    ),
    "vae-categorical": _latent(
        lambda: _vae(
            likelihood=lambda: decoders.CategoricalLikelihood(3),
            observation=lambda: models.Discretizer(3),
        ),
        slow=True,
    ),
    "vae-convolutional": _latent(
        lambda: _of_network(
            encoders.ConvolutionalEncoder((3, 4), features=5),
            decoders.ConvolutionalDecoder((4, 3)),
        ),
        shape=MAP_SHAPE,
    ),
    "vae-residual": _latent(
        lambda: _of_network(
            encoders.ResidualEncoder((3, 4), num_blocks=1, features=5),
            decoders.ResidualDecoder((4, 3), num_blocks=1),
        ),
        shape=MAP_SHAPE,
        slow=True,
    ),
    "vae-gated": _latent(
        lambda: _of_network(encoders.GatedEncoder(2), decoders.GatedDecoder(2)),
        shape=MAP_SHAPE,
        slow=True,
    ),
    "vae-grouped": _latent(_grouped),
    "hierarchical-vae": _latent(_hierarchical),
    "hierarchical-vae-classes": _latent(lambda: _hierarchical(3), classes=3, slow=True),
    "auto-encoder": _auto_encoder(),
    "factor-vae": _factor_vae(),
}

# Codes.

CHANNELS = 4


def _average(codes: int = 5) -> quantizers.VectorQuantizer:
    return quantizers.VectorQuantizer(codes)


QUANTIZERS: dict[str, Callable[[], Any]] = {
    "average": _average,
    "gradient": lambda: quantizers.VectorQuantizer(5, average=None),
    "rotation": lambda: quantizers.VectorQuantizer(5, gradient=quantizers.rotation_trick),
    "cosine": lambda: quantizers.VectorQuantizer(5, cosine=True),
    "residual": lambda: quantizers.ResidualQuantizer(3, num_stages=2),
    "residual-shared": lambda: quantizers.ResidualQuantizer(
        3, num_stages=2, average=None, shared=True
    ),
    "grouped": lambda: quantizers.GroupedQuantizer(_average(3), num_groups=2),
    "finite-scalar": lambda: quantizers.FiniteScalarQuantizer((3, 2, 2, 2)),
    "lookup-free": lambda: quantizers.LookupFreeQuantizer(CHANNELS),
    "gumbel": lambda: quantizers.GumbelQuantizer(5),
}
QUICK = {"average", "residual", "finite-scalar"}


def _map_encoder(features: int = CHANNELS) -> encoders.MapEncoder:
    return encoders.MapEncoder((6,), features=features, num_blocks=1)


def _map_decoder() -> decoders.Decoder:
    network = decoders.MapDecoder((6,), num_blocks=1)
    likelihood = decoders.DiscretizedLogisticMixtureLikelihood()
    return decoders.Decoder(network, likelihood, MAP_SHAPE, latent_ndims=3)


def _vqvae(quantizer: Any) -> models.VQVAE:
    return models.VQVAE(_map_encoder(), quantizer, _map_decoder(), models.Discretizer())


def _vqvae2(levels: int = 2) -> models.VQVAE2:
    return models.VQVAE2(
        (*(_map_encoder(6) for _ in range(levels - 1)), _map_encoder()),
        tuple(decoders.MapDecoder((5,), num_blocks=1) for _ in range(levels - 1)),
        tuple(_average(5 - level) for level in reversed(range(1, levels + 1))),
        _map_decoder(),
        models.Discretizer(),
        CHANNELS,
    )


def _codes(build: Callable[[], Any], slow: bool = False) -> Golden:
    """Codes, what the decoder makes of them, the loss, and what a step of training learns."""
    images = _images(MAP_SHAPE)

    def outputs(model: Any, variables: Any) -> Outputs:
        batch = {"image": images}
        loss, aux = losses.vq_vae(model, variables, batch, KEY, train=False)
        trained, learned = losses.vq_vae(model, variables, batch, KEY)
        codes = model.apply(variables, images, KEY, method="encode")
        found = {f"codes_{level}": maps for level, maps in enumerate(codes)}
        found |= {"loss": loss, "trained_loss": trained, **aux.metrics}
        found["lookup"] = model.apply(variables, codes, method="lookup")
        for number, leaf in enumerate(jax.tree.leaves(learned.state)):
            found[f"learned_{number}"] = leaf
        return found

    return Golden(build, (images,), outputs, slow)


def _gated_prior(
    shape: tuple[int, int], codes: int, classes: int | None = None, above: int | None = None
) -> models.CodePrior:
    given = (
        None
        if above is None
        else nn.UpsampledConditioner(shape, num_codes=above, channels=3, num_blocks=1)
    )
    network = nn.GatedPixelCNN(shape, num_codes=codes, channels=4, num_blocks=1)
    return models.CodePrior(network, num_classes=classes, above=given)


def _snail_prior(shape: tuple[int, int], codes: int, classes: int | None = None) -> Any:
    network = nn.PixelSNAIL(
        shape, num_codes=codes, channels=4, num_blocks=1, num_residuals=1, num_heads=2
    )
    return models.CodePrior(network, num_classes=classes)


def _code_model(build: Callable[[], Any], classes: int | None = None, slow: bool = False) -> Golden:
    """The bound, part by part."""
    images = _images(MAP_SHAPE)
    labels = None if classes is None else np.arange(8, dtype=np.int32) % classes

    def outputs(model: Any, variables: Any) -> Outputs:
        batch = {"image": images, "label": labels}
        found = losses.code_bound(model, variables, batch, KEY)
        priors = {f"log_prior_{level}": part for level, part in enumerate(found.log_prior)}
        return {"log_likelihood": found.log_likelihood, **priors}

    return Golden(build, (images,), outputs, slow, labels)


CODES = {
    **{
        f"vqvae-{name}": _codes(lambda make=make: _vqvae(make()), slow=name not in QUICK)
        for name, make in QUANTIZERS.items()
    },
    "vqvae2": _codes(_vqvae2),
    "vqvae2-three-levels": _codes(lambda: _vqvae2(3), slow=True),
    "codes-gated": _code_model(
        lambda: models.CodeModel(_vqvae(_average()), (_gated_prior((4, 3), 5),)), slow=True
    ),
    "codes-snail": _code_model(
        lambda: models.CodeModel(_vqvae(_average()), (_snail_prior((4, 3), 5, 2),)), 2
    ),
    "codes-two-levels": _code_model(
        lambda: models.CodeModel(
            _vqvae2(2), (_snail_prior((2, 2), 3, 2), _gated_prior((4, 3), 4, 2, above=3))
        ),
        2,
        slow=True,
    ),
}

# Translation.


def _munit(
    posterior: Callable[[int], Any] = encoders.PointMassPosterior, spectral: bool = False
) -> models.MUNITGame:
    def coder(shape: tuple[int, int, int], style: int) -> models.ContentStyleCoder:
        return models.ContentStyleCoder(
            content=encoders.ContentEncoder((3, 4), num_blocks=1),
            style=encoders.Encoder(encoders.StyleEncoder((3, 4)), posterior(style)),
            decoder=decoders.AdaINDecoder((4, 3), num_blocks=1, hidden_sizes=(5,)),
            image_shape=shape,
        )

    def judge() -> nn.MultiScaleDiscriminator:
        return nn.MultiScaleDiscriminator(num_scales=2, channels=(3, 4), spectral=spectral)

    return models.MUNITGame(
        models.MUNIT(coder(PAIR["a"], 2), coder(PAIR["b"], 3)),
        models.Discriminators(judge(), judge()),
    )


def _translation(build: Callable[[], Any], slow: bool = False) -> Golden:
    """Every term of both losses, contents, styles, and translations."""
    images = {domain: _images(shape, ROWS) for domain, shape in PAIR.items()}

    def outputs(model: Any, variables: Any) -> Outputs:
        batch = {domain: {"image": of_domain} for domain, of_domain in images.items()}
        generator, terms = losses.munit(model, variables, batch, KEY, cycle=1.0)
        judged, _ = losses.munit_discriminator(model, variables, batch, KEY)
        own, variables_of_own = models.submodel(model, variables, "generator")
        content, style = own.apply(variables_of_own, images["a"], "a", method="encode")
        styles = _normal(ROWS, 3, seed=6)
        translated = own.apply(variables_of_own, images["a"], "b", styles, method="translate")
        found = {"generator": generator, "discriminator": judged, **terms.metrics}
        found |= {"content": jnp.sum(content, axis=(1, 2)), "style": style.mean()}
        return found | {
            "reconstructed": own.apply(
                variables_of_own, content, style.mean(), "a", method="decode"
            ),
            "translated": translated,
        }

    return Golden(build, (images["a"], images["b"]), outputs, slow)


TRANSLATION = {
    "munit": _translation(_munit),
    "munit-spectral": _translation(
        lambda: _munit(encoders.DiagonalGaussianPosterior, spectral=True), slow=True
    ),
}

MODELS: dict[str, Golden] = FLOWS | LATENT | CODES | TRANSLATION
