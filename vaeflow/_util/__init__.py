"""Helpers that many packages use and none owns."""
