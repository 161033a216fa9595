"""Our side of the comparison of MUNITs, its sizes, and who is opened."""

from __future__ import annotations

from typing import ClassVar

import jax
import numpy as np
import pytest

from benchmarks import munit, munit_ours
from benchmarks.munit_size import DECAYS, LEARNING_RATE, SHAPES, WEIGHTS, MunitSize
from experiments import munit_digits, munit_folders
from vaeflow import training

TINY = {
    "content_channels": [4, 6, 8],  # lists, as sizes travel as JSON
    "blocks": 1,
    "style_channels": [3, 5],
    "style_size": 2,
    "hidden": 5,
    "discriminator_channels": [3, 4],
    "scales": 2,
    "batch_size": 2,
}


def test_the_default_is_the_preset_of_the_digits():
    preset = munit_digits.PRESETS["digits"].config
    size = MunitSize()
    assert munit_ours.model_config(size) == preset.model
    assert size.batch_size == preset.train.batch_size
    assert preset.train.learning_rate == LEARNING_RATE
    assert vars(preset.loss) == {**WEIGHTS, "cycle": 0.0}
    assert munit_folders.DECAYS == DECAYS


def test_images_of_both_domains():
    images = MunitSize(batch_size=3).images()
    assert {domain: own.shape for domain, own in images.items()} == {
        domain: (3, *shape) for domain, shape in SHAPES.items()
    }
    for own in images.values():
        assert own.dtype == np.uint8
        assert len({image.tobytes() for image in own}) == 3
    colours = images["b"].max((1, 2))
    assert (colours > 40).all()
    assert (np.ptp(colours.astype(int), axis=1) > 0).all()
    # Nothing in one domain is shown in the other.
    shares = images["b"].max(-1) / colours.max(-1)[:, None, None]
    for grey in images["a"][..., 0]:
        assert np.abs(shares - grey / grey.max()).max((1, 2)).min() > 0.3


def test_content_that_does_not_double_to_28_pixels():
    with pytest.raises(ValueError, match=r"at most 3, .* got \(4, 4, 4, 4\)"):
        MunitSize(content_channels=(4, 4, 4, 4))


def parameters_by_hand() -> dict[str, int]:
    """Numbers of parameters of the tiny players."""
    convolution, blocks = {"a": 1, "b": 3}, 2 * 9 * 8 * 8
    coder = {
        domain: 49 * images * 4
        + 16 * (4 * 6 + 6 * 8)
        + blocks  # content, without biases
        + 49 * images * 3
        + 3
        + 16 * 3 * 5
        + 5
        + 5 * 2
        + 2  # style
        + 2 * 5
        + 5
        + 5 * 5
        + 5
        + 5 * 4 * 8
        + 4 * 8
        + blocks  # modulation and what it modulates
        + 25 * (8 * 6 + 6 * 4)
        + 3 * (6 + 4)
        + 49 * 4 * images
        + images  # to an image
        for domain, images in convolution.items()
    }
    judge = {
        domain: 2 * (16 * images * 3 + 3 + 16 * 3 * 4 + 4 + 4 + 1)
        for domain, images in convolution.items()
    }
    return {"generator": sum(coder.values()), "discriminator": sum(judge.values())}


@pytest.mark.slow
def test_parameters_of_each_player():
    side = munit_ours.make(**TINY)
    found = side.initialize()
    counts = {
        name: sum(leaf.size for leaf in jax.tree.leaves(player.parameters))
        for name, player in side.state.players.items()
    }
    assert counts == parameters_by_hand()
    assert found == {"parameters": sum(counts.values()), "dtypes": ["float32"]}


@pytest.mark.slow
def test_steps_of_our_side():
    side = munit_ours.make(**TINY)
    side.initialize()
    before = jax.device_get(training.variables_of(side.state)["params"])
    assert side.run() > 0
    first = side.loss()
    # The terms that are listed, by their weights.
    terms = {name: float(v) for name, v in side.metrics.items() if name.startswith("generator/")}
    assert first == pytest.approx(
        sum(
            WEIGHTS.get(name.removeprefix("generator/")[:-2], 1.0) * value
            for name, value in terms.items()
            if name[-2:] in ("_a", "_b")
        ),
        rel=1e-5,
    )
    for old, new in zip(
        jax.tree.leaves(before),
        jax.tree.leaves(training.variables_of(side.state)["params"]),
        strict=True,
    ):
        # Adam's first step is as long as the rate, wherever there is a gradient.
        assert np.abs(new - old).max() == pytest.approx(LEARNING_RATE, rel=0.01)
    side.run(30)
    assert int(side.state.step) == 31
    assert side.loss() < first


class Recorder:
    """A side that remembers what it is asked."""

    opened: ClassVar[list[tuple[str, dict]]] = []

    def __init__(self, module: str, *, threads: int, **options):
        self.opened.append((module, threads, options))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __call__(self, command, *arguments):
        return {
            "initialize": {"parameters": 7, "dtypes": ["float32"]},
            "run": 0.002,
            "loss": 1.25,
        }[command]


@pytest.mark.parametrize(("peer", "names"), [(True, ["ours", "torch"]), (False, ["ours"])])
def test_who_is_opened_and_the_table(monkeypatch, capsys, peer, names):
    monkeypatch.setattr(Recorder, "opened", [])
    monkeypatch.setattr(munit, "Side", Recorder)
    monkeypatch.setattr(munit, "machine", lambda *packages: print("Packages:", *packages))
    munit.main(munit.Config(MunitSize(blocks=1, batch_size=4), peer=peer, repeats=1, threads=3))
    assert [module for module, *_ in Recorder.opened] == [f"benchmarks.munit_{n}" for n in names]
    for _, threads, options in Recorder.opened:
        assert threads == 3
        assert MunitSize(**options) == MunitSize(blocks=1, batch_size=4)
    text = capsys.readouterr().out
    assert ("torch" in text.splitlines()[0]) is peer
    assert "batch 4 of each domain" in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[2:]] == [f"| {name}" for name in names]
    assert all(len(row) == len(munit.COLUMNS) for row in rows)
    assert rows[2][3:] == ["0.00", "2.00", "2.00", "1.00", "1.2 |"]
