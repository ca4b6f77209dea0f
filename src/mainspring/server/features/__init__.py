"""Data in the process: pushes, quality, replay, vector indexes, and what champions read."""
