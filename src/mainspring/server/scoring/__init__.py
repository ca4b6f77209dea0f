"""Scoring a whole table with a model: its rows cut into parts, each a step of the engine, its features joined."""
