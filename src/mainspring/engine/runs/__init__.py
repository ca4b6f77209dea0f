"""One run of a graph: its state, its rows in the catalog, what is kept of earlier runs, and what it tells."""
