"""Versions of models in a process, and rollouts from one to the next."""
