"""Which objective is defined for which model: the README's table, and ValueError for all others."""

from __future__ import annotations

import functools
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import linear_chain as chain
from tests import linear_gaussian as exact
from tests import munit_game
from vaeflow import decoders, encoders, flows, losses, models, quantizers

KEY = jax.random.key(0)
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
README, REFERENCE = ROOT / "README.md", ROOT / "docs" / "reference.md"
BATCH = exact.BATCH | {"vector": exact.DATA.reshape(3, -1), "label": np.arange(3)}


class Classifier(nn.Module):
    @nn.compact
    def __call__(self, images):
        return nn.Dense(4)(images.reshape(len(images), -1).astype(jnp.float32))

    logits = __call__


OBJECTIVES = {
    "elbo": losses.elbo,
    "importance_weighted": functools.partial(losses.importance_weighted, num_samples=2),
    "sticking_the_landing": losses.sticking_the_landing,
    "doubly_reparameterized": functools.partial(losses.doubly_reparameterized, num_samples=2),
    "hfvae": functools.partial(losses.hfvae, dataset_size=9),
    "beta_tcvae": functools.partial(losses.beta_tcvae, dataset_size=9),
    "dip_vae": losses.dip_vae,
    "info_vae": losses.info_vae,
    "reconstruction": losses.reconstruction,
    "vq_vae": losses.vq_vae,
    "cross_entropy": losses.cross_entropy,
    "negative_log_likelihood": functools.partial(losses.negative_log_likelihood, data="vector"),
    "forward_kl": functools.partial(
        losses.forward_kl, energy=lambda x: jnp.sum(x**2, axis=-1), data="vector"
    ),
}
MODELS = {
    "VAE": exact.model(encoders.DiagonalGaussianPosterior(exact.LATENTS)),
    "HierarchicalVAE": chain.model(2),
    "AutoEncoder": models.AutoEncoder(
        encoders.DenseEncoder(hidden_sizes=()),
        2,
        decoders.Decoder(
            decoders.DenseDecoder(hidden_sizes=()), decoders.GaussianLikelihood(1.0), exact.SHAPE
        ),
        exact.Observed(),
    ),
    "FlowModel": models.FlowModel(flows.NICE((exact.SIZE,), num_steps=1, hidden_sizes=(2,))),
    "VQVAE": models.VQVAE(
        encoders.MapEncoder((2,), features=2, num_blocks=1),
        quantizers.FiniteScalarQuantizer((3, 3)),
        decoders.Decoder(
            decoders.MapDecoder((2,), num_blocks=1),
            decoders.GaussianLikelihood(1.0),
            exact.SHAPE,
            3,
        ),
        exact.Observed(),
    ),
    "Classifier": Classifier(),
    "MUNITGame": munit_game.GAME,
    "MUNIT": munit_game.GAME.generator,
}
OF_ONE_POSTERIOR = {
    "sticking_the_landing",
    "doubly_reparameterized",
    "hfvae",
    "beta_tcvae",
    "dip_vae",
}
DEFINED = {
    "VAE": {"elbo", "importance_weighted", "info_vae", *OF_ONE_POSTERIOR},
    "HierarchicalVAE": {"elbo", "importance_weighted", "info_vae"},
    "AutoEncoder": {"reconstruction"},
    "FlowModel": {"negative_log_likelihood", "forward_kl"},
    "VQVAE": {"vq_vae"},
    "Classifier": {"cross_entropy"},
    "MUNITGame": set(),  # its losses take players, as does that of a FactorVAE
    "MUNIT": set(),
}


@pytest.fixture(scope="module")
def variables():
    first = dict.fromkeys(MODELS, exact.DATA) | {"FlowModel": BATCH["vector"]}
    return {
        name: jax.jit(model.init)(KEY, first[name]) if DEFINED[name] else {}
        for name, model in MODELS.items()
    }


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objective_is_defined_or_raises(objective, name, variables):
    run = functools.partial(OBJECTIVES[objective], MODELS[name])
    if objective in DEFINED[name]:
        assert np.isfinite(jax.jit(run)(variables[name], BATCH, KEY)[0])
    else:
        with pytest.raises(ValueError, match=rf"this objective is defined for .*{name}"):
            run(variables[name], BATCH, KEY)


@pytest.mark.parametrize("objective", sorted(DEFINED["VAE"]))
def test_images_are_encoded_once(objective, variables):
    calls = []

    def count(function, arguments, keywords, context):
        if isinstance(context.module, encoders.Encoder) and context.method_name == "__call__":
            calls.append(context.module.name)
        return function(*arguments, **keywords)

    with nn.intercept_methods(count):
        loss = functools.partial(OBJECTIVES[objective], MODELS["VAE"])
        jax.make_jaxpr(loss)(variables["VAE"], BATCH, KEY)
    assert calls == ["encoder"]


OF_VAES = {
    objective: tuple(objective in DEFINED[model] for model in ("VAE", "HierarchicalVAE"))
    for objective in OBJECTIVES
    if objective in DEFINED["VAE"] | DEFINED["HierarchicalVAE"]
}
"""Whether each objective of either model is defined for a `VAE`, and for a `HierarchicalVAE`."""


def rows_of_table(path, header):
    """The cells of a Markdown table, row by row, below its header."""
    table = path.read_text().partition(header)[2].partition("\n\n")[0]
    return [line.strip("|").split("|") for line in table.splitlines()[2:]]


def test_the_table_of_the_readme_is_this_one():
    documented = {
        objective: (bool(flat.strip()), bool(ladder.strip()))
        for names, flat, ladder in rows_of_table(
            README, "| objective | `VAE` | `HierarchicalVAE` |"
        )
        for objective in OBJECTIVES
        if f"`{objective}`" in names
    }
    assert documented == OF_VAES


def test_the_table_of_the_reference_is_this_one():
    rows = rows_of_table(REFERENCE, "| objective | models |")
    documented = {
        objective: ("`vf.models.VAE`" in kinds, "`vf.models.HierarchicalVAE`" in kinds)
        for names, kinds in rows
        for objective in OBJECTIVES
        if f"`vf.losses.{objective}`" in names
    }
    assert {name: kinds for name, kinds in documented.items() if any(kinds)} == OF_VAES
