"""Anthropic's wire: messages and token counts."""
