"""KServe's v1 protocol."""
