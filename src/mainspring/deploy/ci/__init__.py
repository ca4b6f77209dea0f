"""Pipelines for CI services: files that only call our own verbs."""
