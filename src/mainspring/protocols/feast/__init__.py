"""Feast's HTTP wire."""
