"""Logs of sources and feature views: how rows get in, each batch once, what they may be, and what is swept again."""
