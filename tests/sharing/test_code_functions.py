"""Exported functions of models with codes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.code_models import IMAGES, code_model, waved
from tests.variables import drawn_variables
from vaeflow import losses, sharing

KEY = jax.random.key(0)
LABELS = np.arange(8, dtype=np.int32) % 2
NAMES = {1: ("codes",), 2: ("top", "bottom")}


@pytest.mark.parametrize(
    ("levels", "classes"), [pytest.param(2, None, marks=pytest.mark.slow), (1, 2)]
)
@pytest.mark.slow
def test_exported_functions_are_the_models(levels, classes, tmp_path):
    model = code_model(levels, classes)
    labels = None if classes is None else LABELS
    variables = drawn_variables(model.init, IMAGES, context=labels)
    variables |= {"params": waved(variables["params"])}
    functions = sharing.export_functions(model, level_names=NAMES[levels])
    sharing.save_exported(tmp_path / "file", functions, variables, {})
    loaded = sharing.load_exported(tmp_path / "file")
    encoders = [f"encode_{name}" for name in NAMES[levels]]
    assert sorted(loaded) == sorted(["bound", "decode", "sample", *encoders])

    keys = jax.random.split(jax.random.key(5), 8)
    numbers = np.asarray(jax.random.key_data(keys))

    @jax.jit
    def directly(variables):
        batch = {"image": IMAGES, "label": LABELS}
        bound = losses.code_bound(model, variables, batch, keys).total()
        codes = model.apply(variables, IMAGES, context=labels, rngs={"sample": KEY})
        images = model.apply(variables, codes, method=lambda m, codes: m.auto_encoder.decode(codes))
        return bound, codes, images

    bound, codes, images = jax.device_get(directly(variables))
    # A row depends on itself alone, so batches of all sizes hold the same rows.
    rows = slice(1, 4)
    all_labels = () if labels is None else (labels,)
    given = [label[rows] for label in all_labels]
    for name, maps in zip(encoders, codes, strict=True):
        np.testing.assert_array_equal(loaded[name](IMAGES[rows], numbers[rows]), maps[rows])
    got = loaded["bound"](IMAGES[rows], numbers[rows], *given)
    np.testing.assert_allclose(got, bound[rows], rtol=1e-4)
    shown = np.int32(loaded["decode"](*(maps[rows] for maps in codes)))
    assert np.mean(shown != images[rows]) < 0.02
    # A row's sample depends on its own key alone.
    temperature = np.float32(0.8)
    drawn = np.asarray(loaded["sample"](numbers, temperature, *all_labels))
    alone = loaded["sample"](numbers[3:4], temperature, *(label[3:4] for label in all_labels))
    assert drawn.shape == IMAGES.shape
    assert drawn.dtype == jnp.uint8
    assert np.mean(drawn[3] != np.asarray(alone)[0]) < 0.02
    assert len({row.tobytes() for row in drawn}) > 4
