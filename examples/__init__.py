"""Whole projects; ``python -m examples.demo`` runs the demo over one of them."""
