"""Indexes over vectors that are features: they follow a view's log, and answer as its online rows do."""
