"""Checks at work: what is judged before a commit, what is set aside, refused or told, and where that is on record."""
