"""One folder per technology; each owns everything about it. Only `choose` loads them, by their entry points."""
