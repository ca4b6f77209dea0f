"""Answers in words in the process: language models, indexes, assistants, and how they are judged."""
