"""What is drawn of latents, for models whose posteriors are written down by hand."""

from __future__ import annotations

import types

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import vaeflow as vf
from experiments.latent_evaluation import Evaluation
from experiments.latent_figures import Drawing
from experiments.latent_units import Unit, units_of
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


class Kept(Drawing):
    """Keeps figures instead of writing them."""

    def __init__(self, model, dataset, folder):
        directory = types.SimpleNamespace(figures=folder)
        super().__init__(model, dataset, directory, Evaluation(model, 100))
        self.figures = {}

    def save(self, name, figure):
        self.figures[name] = figure


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


def test_latents_are_traversed_from_the_largest_kl_on(tmp_path):
    model, variables = vae()
    drawing = Kept(model, dataset(), tmp_path)
    drawing.traversals(variables)
    kl = [gain**2 / 8 for gain in GAINS]
    figure = drawing.figures["traversals"]
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
    with Image.open(tmp_path / "traversals.gif") as animation:
        assert animation.n_frames == 24


def test_without_a_formula_for_the_kl_the_order_is_that_of_the_variances(tmp_path):
    model, variables = with_mixture(3)
    drawing = Kept(model, dataset(), tmp_path)
    drawing.traversals(variables)
    spread = np.var(IMAGES.reshape(8, 4)[:, :3] / 255 * GAINS, axis=0)
    rows = [f"z{latent}" for latent in np.argsort(-spread)]
    assert texts(drawing.figures["traversals"]) == [*rows, *(f"{n:+d} sd" for n in range(-3, 4))]


def test_the_two_most_used_latents_are_drawn_by_label(tmp_path):
    model, variables = vae()
    drawing = Kept(model, dataset(LABELS), tmp_path)
    drawing.aggregate_posterior(variables)
    (axes,) = drawing.figures["aggregate_posterior"].axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("z1", "z2")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["0", "1"]
    drawn = drawing.evaluation("sample", variables, drawing.dataset.test)
    np.testing.assert_allclose(axes.collections[0].get_offsets(), drawn[[1, 2]].T)


def test_components_of_the_prior_are_drawn_with_their_places(tmp_path):
    model, variables = with_mixture(2)
    drawing = Kept(model, dataset(LABELS), tmp_path)
    drawing.aggregate_posterior(variables)
    by_label, by_component = drawing.figures["aggregate_posterior"].axes
    assert by_label.get_legend().get_title().get_text() == "label"
    assert by_component.get_legend().get_title().get_text() == "component"
    crosses = [line.get_data() for line in by_component.lines if len(line.get_xdata()) == 1]
    np.testing.assert_allclose(np.array(crosses)[..., 0], [[0, -1.5], [0, 1.5]])
    middle, _ = drawing.evaluation("component", variables, drawing.dataset.test)
    assert middle.tolist() == (IMAGES.reshape(8, 4)[:, 1] > 0).tolist()


def test_paths_have_the_real_images_at_their_ends(tmp_path):
    model, variables = vae()
    drawing = Kept(model, dataset(), tmp_path)
    drawing.interpolations(variables)
    figure = drawing.figures["interpolations"]
    assert texts(figure) == [*["linear", "spherical"] * 3, "real", *[""] * 8, "real"]
    canvas = render(figure)
    lefts = {left for _, left in occurrences(canvas, IMAGES[0], 8)}
    rights = {left for _, left in occurrences(canvas, IMAGES[1], 8)}
    assert min(lefts) < 100 < max(rights)


@pytest.mark.parametrize("standard", [True, False])
def test_manifolds_are_over_quantiles_or_over_the_data(standard, tmp_path):
    model, variables = vae(2) if standard else with_mixture(2)
    drawing = Kept(model, dataset(), tmp_path)
    drawing.manifold(variables)
    labels = [text for text in texts(drawing.figures["manifold"]) if text]
    if standard:
        assert labels == ["1.9", "z1 = 0.0", "-1.9", "-1.9", "z0 = 0.0", "1.9"]
    else:
        drawn = drawing.evaluation("sample", variables, drawing.dataset.test)
        low, high = np.quantile(drawn, [0.01, 0.99], axis=1)
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
