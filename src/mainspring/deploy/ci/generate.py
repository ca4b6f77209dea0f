"""Placeholder."""

FLAVOURS = ("github",)
