"""Checkpoints come back as they were, the last good one first."""

from __future__ import annotations

import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from etils import epath

from vaeflow.training import create_train_state
from vaeflow.training.checkpoint import Checkpoint, Checkpoints


def tree(value: float) -> dict:
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    parameters = {"kernel": jnp.full((3, 2), value), "half": jnp.full(2, value, jnp.bfloat16)}
    return {"state": create_train_state({"params": parameters}, optimizer), "best": {}}


def abstract(value: float = 0.0) -> dict:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree(value)
    )


@pytest.fixture
def path(tmp_path):
    with Checkpoints(epath.Path(tmp_path / "checkpoints")) as checkpoints:
        assert checkpoints.restore_latest(abstract()) == (None, [])
        for step in range(1, 6):
            checkpoints.save(step, Checkpoint(tree(step + 0.1), {"step": step, "none": None}))
    return epath.Path(tmp_path / "checkpoints")


def damage(path, step):
    for file in pathlib.Path(path / str(step) / "tree").glob("**/d/*"):
        file.write_bytes(file.read_bytes()[:10])


def test_the_latest_of_three_is_restored_bit_for_bit(path):
    with Checkpoints(path) as checkpoints:
        assert checkpoints.latest_step() == 5
        found, complaints = checkpoints.restore_latest(abstract())
    toy.equal(found.tree, tree(5.1))
    assert found.progress == {"step": 5, "none": None}
    assert complaints == []
    assert sorted(entry.name for entry in path.iterdir() if entry.name.isdigit()) == ["3", "4", "5"]


def test_arrays_may_be_donated_while_they_are_saved(tmp_path):
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    with Checkpoints(epath.Path(tmp_path)) as checkpoints:
        x = jnp.zeros((512, 512))
        for step in range(1, 4):
            x = add(x)
            checkpoints.save(step, Checkpoint({"x": x}, {}))
        for _ in range(20):
            x = add(x)
    with Checkpoints(epath.Path(tmp_path)) as checkpoints:
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        shape = {"x": jax.ShapeDtypeStruct((512, 512), jnp.float32, sharding=sharding)}
        found, _ = checkpoints.restore_latest(shape)
    np.testing.assert_array_equal(found.tree["x"], 3.0)


def test_a_damaged_one_is_named_and_the_one_before_is_used(path):
    damage(path, 5)
    with Checkpoints(path) as checkpoints:
        found, complaints = checkpoints.restore_latest(abstract())
        toy.equal(found.tree, tree(4.1))
        assert len(complaints) == 1
        assert complaints[0].startswith("checkpoint 5 can't be read and is set aside, 4 is used")
        assert (path / "unreadable-5").is_dir()
        checkpoints.save(5, Checkpoint(tree(7.0), {}))  # the step is free again
    with Checkpoints(path) as checkpoints:
        toy.equal(checkpoints.restore_latest(abstract())[0].tree, tree(7.0))


def test_arrays_that_are_readable_but_not_those_that_were_saved_are_noticed(path):
    # Readable arrays, but not those of step 5.
    shutil.rmtree(path / "5" / "tree")
    shutil.copytree(path / "4" / "tree", path / "5" / "tree")
    with Checkpoints(path) as checkpoints:
        found, complaints = checkpoints.restore_latest(abstract())
    toy.equal(found.tree, tree(4.1))
    assert len(complaints) == 1
    assert "its arrays aren't those that were saved" in complaints[0]


def test_where_none_fits_nothing_is_touched(path):
    other = abstract()
    other["state"].players["model"].parameters["new"] = jax.ShapeDtypeStruct((2,), jnp.float32)
    with (
        Checkpoints(path) as checkpoints,
        pytest.raises(ValueError, match=r"no checkpoint in .* can be read \(5: "),
    ):
        checkpoints.restore_latest(other)
    assert sorted(entry.name for entry in path.iterdir() if entry.name.isdigit()) == ["3", "4", "5"]
