"""Figures of latents, for models whose posteriors are set by hand."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
import pytest

import vaeflow as vf
from experiments import _evaluation, _figures
from experiments._evaluation import Unit, units_of
from tests.pixels import occurrences, render
from vaeflow import bases, data, decoders, encoders, models

GAINS = (1.2, 3.2, 2.0)
"""Latent d has mean GAINS[d] times pixel d and deviation one: its KL is half the mean's square."""
IMAGES = (255 * np.random.default_rng(0).integers(0, 2, (8, 2, 2, 1))).astype(np.uint8)
LABELS = np.arange(8, dtype=np.int32) % 2


def dataset(labels: np.ndarray | None = None) -> data.Dataset:
    def read(rows):
        batch = {"image": IMAGES[rows]}
        return batch if labels is None else {**batch, "label": labels[rows]}

    source = data.Source(read, np.arange(8))
    return data.Dataset("toy", (2, 2, 1), None, source, source, source)


def vae(latents: int = 3, prior=None) -> tuple[models.VAE, dict]:
    model = models.VAE(
        encoders.Encoder(
            encoders.DenseEncoder(hidden_sizes=()), encoders.DiagonalGaussianPosterior(latents)
        ),
        decoders.Decoder(
            decoders.DenseDecoder(hidden_sizes=()), decoders.BernoulliLikelihood(), (2, 2, 1)
        ),
        models.Binarizer(),
        prior,
    )
    kernel = np.zeros((4, latents), np.float32)
    kernel[range(latents), range(latents)] = GAINS[:latents]
    zeros = jnp.zeros(latents)
    # Half a pixel's worth is taken off: pixel means are +-1/2 then.
    mean = {"kernel": jnp.asarray(kernel), "bias": -jnp.asarray(GAINS[:latents]) / 2}
    scale = {"kernel": jnp.zeros((4, latents)), "bias": zeros}
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(latents, 4)), jnp.float32)
    decoder = {"network": {"Dense_0": {"kernel": weights}}, "offset": jnp.zeros((2, 2, 1, 1))}
    encoder = {"posterior": {"mean": mean, "scale": scale}}
    return model, {"params": {"encoder": encoder, "decoder": decoder}}


def measured(function, model, variables, dataset) -> np.ndarray:
    return _evaluation.measure(functools.partial(function, model), variables, dataset.test)


def with_mixture(latents: int) -> tuple[models.VAE, dict]:
    """A prior of two components, one on each side of the data's second latent."""
    model, variables = vae(latents, bases.GaussianMixtureBase((latents,), num_components=2))
    mean = np.zeros((2, latents), np.float32)
    mean[:, 1] = -1.5, 1.5
    prior = {
        "logits": jnp.zeros(2),
        "mean": jnp.asarray(mean),
        "log_scale": jnp.zeros((2, latents)),
    }
    return model, {"params": {**variables["params"], "prior_model": prior}}


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_latents_are_traversed_by_decreasing_kl():
    model, variables = vae()
    figure, frames = _figures.traversals(model, variables, dataset())
    kl = [gain**2 / 8 for gain in GAINS]
    rows = [f"z{latent}, KL {kl[latent]:.2f} nats" for latent in (1, 2, 0)]
    assert texts(figure) == [*rows, *map(str, range(-3, 4))]
    canvas = render(figure)
    tops = []
    for latent in (1, 2, 0):
        z = np.asarray(GAINS) * (IMAGES[0].ravel()[:3] / 255 - 0.5)
        z[latent] = 2.0
        image = np.asarray(model.apply(variables, jnp.asarray(z, jnp.float32), method="decode"))
        ((top, _),) = occurrences(canvas, image, 8)
        tops.append(top)
    assert tops == sorted(tops)
    assert len(frames) == 24


def test_without_a_closed_form_of_the_kl_the_order_is_that_of_the_variances():
    model, variables = with_mixture(3)
    figure, _ = _figures.traversals(model, variables, dataset())
    spread = np.var(IMAGES.reshape(8, 4)[:, :3] / 255 * GAINS, axis=0)
    rows = [f"z{latent}" for latent in np.argsort(-spread)]
    headings = ["-3 sd", "-2 sd", "-1 sd", "mean", "+1 sd", "+2 sd", "+3 sd"]
    assert texts(figure) == [*rows, *headings]


def test_the_two_most_used_latents_are_plotted_by_label():
    model, variables = vae()
    labelled = dataset(LABELS)
    (axes,) = _figures.aggregate_posterior(model, variables, labelled).axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("z1", "z2")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["0", "1"]
    drawn = measured(_evaluation.posterior_sample, model, variables, labelled)
    np.testing.assert_allclose(axes.collections[0].get_offsets(), drawn[:, [1, 2]])


def test_components_of_the_prior_are_plotted_with_their_means():
    model, variables = with_mixture(2)
    labelled = dataset(LABELS)
    by_label, by_component = _figures.aggregate_posterior(model, variables, labelled).axes
    assert by_label.get_legend().get_title().get_text() == "label"
    assert by_component.get_legend().get_title().get_text() == "component"
    crosses = [line.get_data() for line in by_component.lines if len(line.get_xdata()) == 1]
    np.testing.assert_allclose(np.array(crosses)[..., 0], [[0, -1.5], [0, 1.5]])
    components = measured(_evaluation.prior_components, model, variables, labelled)
    assert components[:, 0].tolist() == (IMAGES.reshape(8, 4)[:, 1] > 0).tolist()


def test_paths_have_the_real_images_at_their_ends():
    model, variables = vae()
    figure = _figures.interpolations(model, variables, dataset())
    assert texts(figure) == [*["linear", "spherical"] * 3, "real", *[""] * 8, "real"]
    canvas = render(figure)
    lefts = {left for _, left in occurrences(canvas, IMAGES[0], 8)}
    rights = {left for _, left in occurrences(canvas, IMAGES[1], 8)}
    assert min(lefts) < 100 < max(rights)


@pytest.mark.parametrize("standard", [True, False])
def test_manifolds_are_over_quantiles_or_over_the_data(standard):
    model, variables = vae(2) if standard else with_mixture(2)
    figure = _figures.manifold(model, variables, dataset())
    labels = [text for text in texts(figure) if text]
    if standard:
        assert labels == ["1.9", "z1 = 0.0", "-1.9", "-1.9", "z0 = 0.0", "1.9"]
    else:
        drawn = measured(_evaluation.posterior_sample, model, variables, dataset())
        low, high = np.quantile(drawn, [0.01, 0.99], axis=0)
        assert labels[::2][:1] == [f"{high[1]:.1f}"]
        assert (labels[2], labels[3], labels[5]) == tuple(
            f"{value:.1f}" for value in (low[1], low[0], high[0])
        )


def test_units_are_named_by_their_group():
    assert units_of(vae()[0]) == [Unit("z0", 0), Unit("z1", 1), Unit("z2", 2)]
    groups = {
        "style": encoders.DiagonalGaussianPosterior(2),
        "digit": encoders.ConcretePosterior(10),
    }
    model = models.VAE(
        encoders.Encoder(encoders.DenseEncoder(()), encoders.GroupedPosterior(groups)),
        decoders.Decoder(decoders.DenseDecoder(()), decoders.BernoulliLikelihood(), (2, 2, 1)),
        vf.models.Binarizer(),
    )
    assert units_of(model) == [Unit("style.0", 0), Unit("style.1", 1), Unit("digit", 2, 10)]


def test_evaluation_shows_a_bar_where_it_has_a_title(capfd):
    model, variables = vae()
    terms = functools.partial(_evaluation.elbo_terms, model)
    first = _evaluation.measure(terms, variables, dataset().test)
    assert capfd.readouterr().err == ""
    titled = _evaluation.measure(terms, variables, dataset().test, "ELBO", size=3)
    out, err = capfd.readouterr()
    assert out == ""
    assert "evaluating ELBO: 100%" in err
    assert "8/8" in err
    for name, values in first.items():
        np.testing.assert_allclose(titled[name], values, rtol=1e-5)
