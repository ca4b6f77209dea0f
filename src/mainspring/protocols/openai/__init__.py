"""OpenAI's wire: chat completions, completions, embeddings, responses and models."""
