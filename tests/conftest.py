"""How tests run: on CPU, with cheap and cached compilation."""

from __future__ import annotations

import gc
import importlib.metadata
import itertools
import os
import pathlib
import signal
from collections.abc import Iterator

MAPPINGS = pathlib.Path("/proc/self/maps")
TESTS = itertools.count(1)
CACHE = pathlib.Path(__file__).resolve().parent.parent / ".cache" / "jax"

# In the environment, so that processes that tests start share them; before JAX is imported.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
# XLA's older way to compile loops on CPUs, and in one piece: half the time for programs this small.
FLAGS = [os.environ.get("XLA_FLAGS", ""), "--xla_cpu_parallel_codegen_split_count=1"]
if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")  # unknown later, which ends the process
os.environ["XLA_FLAGS"] = " ".join(FLAGS).strip()

import jax  # noqa: E402
import pytest  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    """Declares a marker, collects garbage less often, and lets workers race for the cache."""
    # Tracing makes objects by the million that live on: looking at them again and again is dear.
    gc.set_threshold(200_000, 20, 100)
    config.addinivalue_line(
        "markers", "optimized: compile as users do; for tests of memory, speed or single bits."
    )
    # Entries aren't written atomically: a worker that reads half of one compiles for itself.
    config.addinivalue_line(
        "filterwarnings", "ignore:Error (reading|writing) persistent compilation cache entry"
    )


@pytest.fixture
def heeded_signals() -> Iterator[None]:
    """Handles signals as usual where the process ignores them: under nohup, in the background."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ignored = [number for number in numbers if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        is_interrupt = number == signal.SIGINT
        signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(autouse=True)
def _forgetful() -> Iterator[None]:
    """Drops what was compiled before it takes too many mappings of memory.

    Linux gives a process 65,530 of them by default. A program takes dozens, and the one that finds
    none left crashes.
    """
    yield
    # Counting them takes longer than many a test.
    if next(TESTS) % 20 == 0 and MAPPINGS.exists() and MAPPINGS.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def _optimized(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compiles tests marked `optimized` with all of XLA's optimisations."""
    if request.node.get_closest_marker("optimized") is None:
        yield
        return
    # What was compiled without them is dropped, before and after.
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
    jax.clear_caches()
