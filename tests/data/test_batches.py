"""The contract of batches: they depend on seed and step alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vaeflow import data
from vaeflow.data.dataset import array_part

COUNT = 50
BATCH = 8


@pytest.fixture(scope="module")
def source() -> data.Source:
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 4, 6, 1), dtype=np.uint8)
    read = array_part(images, np.arange(COUNT) % 3).read
    return data.Source(read, np.arange(COUNT)[::-1], offset=100)


def take(count: int, source: data.Source, seed: int = 3, batch_size: int = BATCH, **options):
    return list(itertools.islice(data.training_batches(source, batch_size, seed, **options), count))


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name])


def test_batch_has_the_documented_entries(source):
    (batch,) = take(1, source)
    assert batch["image"].shape == (BATCH, 4, 6, 1)
    assert batch["image"].dtype == np.uint8
    assert batch["label"].shape == batch["index"].shape == (BATCH,)
    assert batch["label"].dtype == batch["index"].dtype == np.int32


@pytest.mark.parametrize("flip", [False, True])
def test_rows_belong_together(source, flip):
    everything = data.stack(source)
    place = {index: row for row, index in enumerate(everything["index"])}
    mirrored = 0
    for batch in take(20, source, flip=flip):
        for image, label, index in zip(batch["image"], batch["label"], batch["index"], strict=True):
            original = everything["image"][place[index]]
            assert label == everything["label"][place[index]]
            if not np.array_equal(image, original):
                np.testing.assert_array_equal(image, original[:, ::-1])
                mirrored += 1
    rows = 20 * BATCH
    assert (0.3 * rows < mirrored < 0.7 * rows) if flip else mirrored == 0


@pytest.mark.parametrize("flip", [False, True])
def test_same_seed_same_batches(source, flip):
    assert_same(take(10, source, flip=flip), take(10, source, flip=flip))


def test_another_seed_gives_another_order_and_other_flips(source):
    one, two = take(7, source, seed=1), take(7, source, seed=2)
    assert any((a["index"] != b["index"]).any() for a, b in zip(one, two, strict=True))
    # A seed and the next must not be one epoch apart in the same stream.
    one, two = take(1, source, 1, COUNT, start_step=1), take(1, source, 2, COUNT)
    assert (one[0]["index"] != two[0]["index"]).any()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("step", [0, 1, 6, 7, 13])
def test_resuming_equals_continuing(source, step, flip):
    assert_same(
        take(20, source, flip=flip)[step:], take(20 - step, source, start_step=step, flip=flip)
    )


@pytest.mark.parametrize("shards", [1, 2, 4])
@pytest.mark.parametrize("start_step", [0, 5])
def test_shards_together_are_the_global_batch(source, shards, start_step):
    whole = take(12, source, flip=True, start_step=start_step)
    parts = [
        take(12, source, flip=True, start_step=start_step, shard=shard, shards=shards)
        for shard in range(shards)
    ]
    joined = [
        {name: np.concatenate([part[name] for part in step]) for name in step[0]}
        for step in zip(*parts, strict=True)
    ]
    assert_same(whole, joined)


def test_batch_size_only_cuts_the_same_stream(source):
    small = take(10, source, batch_size=5, flip=True)
    large = take(2, source, batch_size=25, flip=True)
    for name in small[0]:
        np.testing.assert_array_equal(
            np.concatenate([batch[name] for batch in small]),
            np.concatenate([batch[name] for batch in large]),
        )


def test_an_epoch_has_each_example_once_and_the_next_another_order(source):
    first, second = take(2, source, batch_size=COUNT)
    for batch in (first, second):
        assert sorted(batch["index"]) == sorted(data.stack(source)["index"])
    assert (first["index"] != second["index"]).any()
    assert (first["index"] != data.stack(source)["index"]).any()


def test_flips_differ_between_epochs(source):
    flipped = []
    for batch in take(2, source, batch_size=COUNT, flip=True):
        order = np.argsort(batch["index"])
        everything = data.stack(source)
        original = everything["image"][np.argsort(everything["index"])]
        flipped.append((batch["image"][order] != original).any(axis=(1, 2, 3)))
    assert (flipped[0] != flipped[1]).any()


def test_flipping_leaves_the_source_alone(source):
    before = data.stack(source)["image"].copy()
    take(10, source, flip=True)
    np.testing.assert_array_equal(data.stack(source)["image"], before)


def test_epoch_batches_pass_once_in_order(source):
    batches = list(data.epoch_batches(source, 16))
    assert [len(batch["index"]) for batch in batches] == [16, 16, 16, 2]
    everything = data.stack(source)
    for name in everything:
        np.testing.assert_array_equal(
            np.concatenate([batch[name] for batch in batches]), everything[name]
        )


def test_stack_and_items_agree(source):
    np.testing.assert_array_equal(data.stack(source)["index"], 100 + np.arange(COUNT)[::-1])
    limited = data.stack(source, limit=7)
    assert len(limited["image"]) == 7
    assert len(data.stack(source, limit=COUNT + 1)["image"]) == COUNT
    for position in range(7):
        example = source[position]
        assert example.keys() == limited.keys()
        for name in limited:
            np.testing.assert_array_equal(example[name], limited[name][position])
    np.testing.assert_array_equal(source[-1]["image"], source[COUNT - 1]["image"])
    with pytest.raises(IndexError, match="position 50 of a split of 50"):
        source[COUNT]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 51}, r"batch_size must be from 1 to 50, .* got 51"),
        ({"batch_size": 0}, r"batch_size must be at least 1, got 0"),
        ({"shards": 3}, r"shards must divide batch_size=8, got 3"),
        ({"shards": 0}, r"shards must divide batch_size=8, got 0"),
        ({"shards": 2, "shard": 2}, r"shard must be from 0 to 1, got 2"),
        ({"shard": -1}, r"shard must be .*, got -1"),
        ({"seed": -1}, r"seed must be .*, got -1"),
        ({"start_step": -1}, r"start_step must be .*, got -1"),
    ],
)
def test_bad_arguments_raise_at_once(source, options, message):
    with pytest.raises(ValueError, match=message):
        data.training_batches(**{"source": source, "batch_size": BATCH, "seed": 0, **options})


def test_bad_sizes_raise(source):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        data.epoch_batches(source, 0)
    with pytest.raises(ValueError, match="limit must be None or at least 1, got 0"):
        data.stack(source, limit=0)
