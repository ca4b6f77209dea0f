"""Carries out a plan: cache keys, workers, commit, resume, map, schedule, logs."""
