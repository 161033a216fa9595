"""Streams and plans of batches, groups and prefetching."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
import toy

from vaeflow.training import TrainConfig
from vaeflow.training.batches import groups, prefetch
from vaeflow.training.update import gather

BATCHES = toy.batches(TrainConfig(batch_size=8, seed=3))


def test_plan_gathers_the_batches_of_the_stream():
    stream = itertools.islice(BATCHES.stream(5), 6)
    plan = list(itertools.islice(BATCHES.plan(5), 6))
    examples = BATCHES.examples()
    for batch, rows in zip(stream, plan, strict=True):
        gathered = gather(examples, rows)
        assert gathered.keys() == batch.keys()
        for name, value in batch.items():
            np.testing.assert_array_equal(gathered[name], value)
            assert gathered[name].dtype == value.dtype
    flips = np.concatenate([rows["flip"] for rows in plan])
    assert flips.dtype == bool
    assert 0 < flips.sum() < len(flips)


def test_groups_are_padded_to_one_shape():
    plan = list(itertools.islice(BATCHES.plan(0), 3))
    first, second = groups(BATCHES.plan(0), iter([2, 1]), 4)
    assert (first[0], second[0]) == (2, 1)
    assert first[1]["index"].shape == second[1]["index"].shape == (4, 8)
    np.testing.assert_array_equal(first[1]["index"][1], plan[1]["index"])
    np.testing.assert_array_equal(second[1]["index"][0], plan[2]["index"])


def test_prefetch_keeps_the_order_and_reads_ahead_on_a_thread():
    yielded, threads = [], set()

    def items():
        for item in range(6):
            yielded.append(item)
            threads.add(threading.current_thread())
            yield item

    fetched = prefetch(items(), ahead=3)
    assert [next(fetched), next(fetched)] == [0, 1]
    fetched.close()
    assert len(yielded) in (4, 5)
    assert threading.main_thread() not in threads
    assert list(prefetch(items())) == list(range(6))


def test_prefetch_raises_errors_in_order():
    def items():
        yield 1
        raise ValueError("broken image")

    fetched = prefetch(items())
    assert next(fetched) == 1
    with pytest.raises(ValueError, match="broken image"):
        next(fetched)
