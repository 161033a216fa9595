"""Sides: processes of their own that answer, and say when they can't."""

from __future__ import annotations

import os

import pytest

from benchmarks.sides import Side

ECHO = "tests.benchmarks.echo"


def test_a_side_runs_in_a_process_of_its_own(capfd):
    environment = {"BENCHMARK_WORD": "set"}
    with Side(ECHO, threads=1, environment=environment, word="hello") as side:
        assert side("say") == ["hello"]
        assert side("say", "to", "you") == ["hello", "to", "you"]
        process = side("process")
    assert process.pop("number") != os.getpid()
    assert process == {"variable": "set", "cores": 1, "jax": False}
    assert "not an answer either" in capfd.readouterr().err


def test_memory_is_that_of_the_side_and_its_peak_can_be_reset():
    with Side(ECHO, threads=1, word="") as side:
        idle = side("memory")
        side("fill", 200)
        filled = side("memory")
        side("forget_peak")
        forgotten = side("memory")
    assert idle["peak"] < 100 * 2**20  # of which this process, which holds JAX, has more
    assert 190 * 2**20 < filled["peak"] - idle["resident"] < 220 * 2**20
    assert filled["resident"] - idle["resident"] < 20 * 2**20
    assert forgotten["peak"] - idle["resident"] < 20 * 2**20


def test_a_side_that_ends_is_an_error(capfd):
    with Side(ECHO, threads=1, word="") as side:
        with pytest.raises(
            RuntimeError, match=r"'tests.benchmarks.echo' ended with code 1 at 'fail'"
        ):
            side("fail")
        with pytest.raises(RuntimeError, match="ended with code 1 at 'say'"):
            side("say")
    assert "ValueError: as it should" in capfd.readouterr().err
