"""A side without a library."""

import os
import sys


def make(word: str) -> "Echo":
    print("not an answer")
    return Echo(word)


class Echo:
    def __init__(self, word: str):
        self.word = word

    def say(self, *words: str) -> list[str]:
        print("not an answer either")
        return [self.word, *words]

    def process(self) -> dict:
        variable = os.environ.get("BENCHMARK_WORD")
        cores = len(os.sched_getaffinity(0))
        found = {"number": os.getpid(), "variable": variable, "cores": cores}
        return {**found, "jax": "jax" in sys.modules}

    def fill(self, megabytes: int) -> None:
        bytearray(megabytes * 2**20)

    def fail(self) -> None:
        raise ValueError("as it should")
