"""Our side of the comparison of quantizers, both ways to sample, and who is opened."""

from __future__ import annotations

from typing import ClassVar

import jax
import numpy as np
import pytest

from benchmarks import vq, vq_ours, vq_sampling
from benchmarks.training_steps import STEP_COLUMNS, training_steps
from benchmarks.vq_size import STAGES, QuantizerSize

TINY = {"codes": 4, "maps": 3, "side": 2, "vector": 5, "batches": 2}


def by_hand():
    """The first batch of the tiny quantizer, the codes it gets at first, and its loss."""
    size = QuantizerSize(**TINY)
    x, codes = size.features()[0].reshape(-1, 5), size.first_codes()
    squares = np.sum((x[:, None] - codes) ** 2, axis=-1)
    chosen = codes[np.argmin(squares, axis=1)]
    return x, chosen, np.mean(chosen @ size.readout()) + 0.25 * np.mean(np.min(squares, axis=1))


def test_a_step_of_our_side_by_hand():
    side = vq_ours.make(**TINY)
    side.initialize()
    learned, (_, gradient), loss = side.step(side.variables, side.features[0], 0)
    x, chosen, expected = by_hand()
    assert loss == pytest.approx(expected, rel=1e-5)
    slope = (side.size.readout() + 0.5 * (x - chosen)) / len(x)
    np.testing.assert_allclose(gradient.reshape(-1, 5), slope, rtol=1e-4, atol=1e-6)
    counts = learned["codebook"]["counts"]
    np.testing.assert_allclose(np.sum(counts), 0.99 * 4 + 0.01 * len(x), rtol=1e-5)


def test_calls_cycle_through_the_batches_and_keep_the_state():
    side = vq_ours.make(**TINY)
    side.initialize()
    assert side.run() > 0
    taken = []
    step = side.step
    side.step = lambda variables, features, made: (
        taken.append((features, made)) or step(variables, features, made)
    )
    side.run(3)
    assert [made for _, made in taken] == [1, 2, 3]
    assert [features is side.features[1] for features, _ in taken] == [True, False, True]
    # Four batches of twelve vectors, taken into averages of four.
    total = 4 * 0.99**4 + 12 * (1 - 0.99**4)
    np.testing.assert_allclose(np.sum(side.variables["codebook"]["counts"]), total, rtol=1e-5)
    first, last = side.first_and_last_loss()
    assert first == pytest.approx(by_hand()[2], rel=1e-5)
    assert first != last


def test_gradients_reach_codes_that_they_teach():
    side = vq_ours.make(**TINY, kind="gradient")
    side.initialize()
    learned, (gradient, _), _ = side.step(side.variables, side.features[0], 0)
    np.testing.assert_array_equal(
        learned["params"]["codebook"], QuantizerSize(**TINY).first_codes()
    )
    assert np.max(np.abs(gradient["codebook"])) > 0


def test_codes_of_a_kind_that_has_its_own_number_of_them():
    assert QuantizerSize("finite-scalar").features().shape[-1] == 3
    assert QuantizerSize("lookup-free", 16).features().shape[-1] == 4
    assert QuantizerSize("residual", 8).first_codes().shape == (STAGES, 8, 64)
    with pytest.raises(ValueError, match="finite-scalar quantizer must be 512, got 8"):
        QuantizerSize("finite-scalar", 8)
    with pytest.raises(ValueError, match="lookup-free quantizer must be 16, got 12"):
        QuantizerSize("lookup-free", 12)


@pytest.mark.parametrize(
    "network", [pytest.param("PixelSNAIL", marks=pytest.mark.slow), "GatedPixelCNN"]
)
@pytest.mark.slow
def test_both_samplers_draw_the_same_maps_from_a_sharp_prior(network):
    side = vq_sampling.make(network=network, side=3, codes=5, channels=8, blocks=1, count=4)
    parameters = side.initialize()
    assert parameters == sum(leaf.size for leaf in jax.tree.leaves(side.variables))
    found = side.agreement()
    assert found["equal"] == 1
    assert found["difference"] < 1e-5
    assert found["spread"] > 0.01
    key = jax.random.key(side.size.seed)
    maps, logits = jax.device_get(jax.jit(side._naive)(side.variables, key))
    given = jax.jit(lambda own, maps: side.prior.apply(own).logits(maps))
    np.testing.assert_array_equal(side.ways["naive"](side.variables, key), maps)
    # The logits are those that the codes before each position give.
    np.testing.assert_allclose(
        logits,
        given(side.variables, maps) + logits.max(-1, keepdims=True),
        atol=1e-5,
    )
    assert len(np.unique(maps)) > 2


class Recorder:
    """A side that remembers what it is asked."""

    opened: ClassVar[list[tuple[str, dict]]] = []

    def __init__(self, module: str, *, threads: int = 0, seconds: float = 1, **options):
        self.opened.append((module, options))
        self.seconds, self.calls = seconds, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __call__(self, command, *arguments):
        self.calls.append((command, *arguments))
        return {
            "initialize": {"parameters": 7, "dtypes": ["float32"]},
            "run": self.seconds,
            "loss": 1.25,
            "first_and_last_loss": [3.0, 2.0],
        }[command]


@pytest.mark.parametrize(
    ("kind", "peer", "modules"),
    [
        ("average", True, ["vq_ours", "vq_torch"]),
        ("average", False, ["vq_ours"]),
        ("gumbel", True, ["vq_ours"]),
    ],
)
def test_who_is_opened_for_a_quantizer(monkeypatch, kind, peer, modules):
    monkeypatch.setattr(Recorder, "opened", [])
    monkeypatch.setattr(vq, "Side", Recorder)
    rows = list(vq.quantized(vq.Config(kinds=((kind, 16),), maps=2, peer=peer, repeats=1)))
    assert [row[:3] for row in rows] == [(kind, 16, name[3:]) for name in modules]
    assert all(row[-2:] == ("3.0000", "2.0000") for row in rows)
    assert [module for module, _ in Recorder.opened] == [f"benchmarks.{name}" for name in modules]
    assert all(options["codes"] == 16 for _, options in Recorder.opened)
    assert all(options["maps"] == 2 for _, options in Recorder.opened)


def test_a_table_of_training_steps():
    sides = {"ours": Recorder("a", seconds=0.002), "other": Recorder("b", seconds=0.005)}
    rows = training_steps(sides, calls=3, repeats=2)
    assert rows == [
        ("ours", 7, "float32", "0.00", "2.00", "2.00", "1.00", "1.2"),
        ("other", 7, "float32", "0.01", "5.00", "5.00", "2.50", "1.2"),
    ]
    assert all(len(row) == len(STEP_COLUMNS) for row in rows)
    for side in sides.values():
        assert side.calls == [("initialize",), ("run",), *[("run", 3)] * 3, ("loss",)]
