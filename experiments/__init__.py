"""Experiments, run as `python -m experiments.NAME`: one file each, over four private modules.

`_cli` has presets and the command line, `_evaluation` measures models over a split, `_figures`
plots, and `_scores` compares generated images with data by a classifier.
"""
