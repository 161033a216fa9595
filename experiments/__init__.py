"""Experiments, run as `python -m experiments.NAME`: one file each, over six private modules.

`_cli` has presets and the command line, `_checks` checks options, `_process` has output and logs,
`_evaluation` measures models over a split, `_figures` plots, and `_scores` compares generated
images with data by a classifier.
"""

from __future__ import annotations

import os
import signal
import sys


def _leave(number: int, frame: object) -> None:
    """Ends a command that is still being imported, which takes seconds."""
    os.write(2, b"stopped\n")
    os._exit(128 + number)


if sys.argv[0] == "-m":  # a command, `python -m experiments.NAME`, that hasn't begun yet
    if sys.getfilesystemencoding() != "utf-8":  # names of files are UTF-8 whatever the locale
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(_number) != signal.SIG_IGN:
            signal.signal(_number, _leave)
