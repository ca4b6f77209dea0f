"""Assistants over HTTP: threads and runs of their own, and as models of OpenAI's wire."""
