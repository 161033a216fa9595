"""Experiments: one short file each, run as `python -m experiments.NAME`."""
