"""Model runtimes, batching, versions, the prediction log: the hot path."""
