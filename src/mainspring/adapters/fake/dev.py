"""How to get one locally: it is part of Mainspring."""

__all__ = ["HOW"]

HOW = '[llms.NAME] adapter = "fake"; script = "answers.json" says what it answers'
