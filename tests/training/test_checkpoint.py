"""Checkpoints: exact restoring, damaged files and the checksum."""

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


def test_latest_checkpoint_is_restored_bit_for_bit(path):
    with Checkpoints(path) as checkpoints:
        assert checkpoints.latest_step() == 5
        checkpoint, warnings = checkpoints.restore_latest(abstract())
    toy.equal(checkpoint.tree, tree(5.1))
    assert checkpoint.progress == {"step": 5, "none": None}
    assert warnings == []
    assert sorted(entry.name for entry in path.iterdir() if entry.name.isdigit()) == ["3", "4", "5"]


def test_arrays_may_be_donated_during_saving(tmp_path):
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
        checkpoint, _ = checkpoints.restore_latest(shape)
    np.testing.assert_array_equal(checkpoint.tree["x"], 3.0)


def test_damaged_checkpoint_is_renamed_and_the_one_before_used(path):
    damage(path, 5)
    with Checkpoints(path) as checkpoints:
        checkpoint, warnings = checkpoints.restore_latest(abstract())
        toy.equal(checkpoint.tree, tree(4.1))
        assert len(warnings) == 1
        assert warnings[0].startswith("checkpoint 5 can't be read and is set aside, 4 is used")
        assert (path / "unreadable-5").is_dir()
        checkpoints.save(5, Checkpoint(tree(7.0), {}))  # the step is free again
    with Checkpoints(path) as checkpoints:
        toy.equal(checkpoints.restore_latest(abstract())[0].tree, tree(7.0))


def test_checksum_detects_replaced_arrays(path):
    # Readable arrays, but not those of step 5.
    shutil.rmtree(path / "5" / "tree")
    shutil.copytree(path / "4" / "tree", path / "5" / "tree")
    with Checkpoints(path) as checkpoints:
        checkpoint, warnings = checkpoints.restore_latest(abstract())
    toy.equal(checkpoint.tree, tree(4.1))
    assert len(warnings) == 1
    assert "its arrays aren't those that were saved" in warnings[0]


def test_unreadable_checkpoints_raise_and_are_kept(path):
    other = abstract()
    other["state"].players["model"].parameters["new"] = jax.ShapeDtypeStruct((2,), jnp.float32)
    with (
        Checkpoints(path) as checkpoints,
        pytest.raises(ValueError, match=r"no checkpoint in .* can be read \(5: "),
    ):
        checkpoints.restore_latest(other)
    assert sorted(entry.name for entry in path.iterdir() if entry.name.isdigit()) == ["3", "4", "5"]
