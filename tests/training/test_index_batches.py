"""`IndexBatches`: the same row numbers at every step."""

import itertools

import numpy as np

from vaeflow.training import IndexBatches
from vaeflow.training.update import gather


def test_stream_yields_row_numbers():
    for batch in itertools.islice(IndexBatches(6).stream(3), 2):
        assert list(batch) == ["index"]
        np.testing.assert_array_equal(batch["index"], np.arange(6))
        assert batch["index"].dtype == np.int32


def test_shards_partition_the_rows():
    parts = [next(IndexBatches(6).stream(0, host, 3))["index"] for host in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(6))


def test_plan_gathers_the_batches_of_the_stream():
    rows = IndexBatches(6)
    plan = next(rows.plan(0, 1, 2))
    gathered = gather(rows.examples(), plan)
    assert list(gathered) == ["index"]
    np.testing.assert_array_equal(gathered["index"], next(rows.stream(0, 1, 2))["index"])
