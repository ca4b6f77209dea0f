"""Searching indexes over REST."""
