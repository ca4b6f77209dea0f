"""Watching models in use: counters, drift, quality, labels, alerts."""
