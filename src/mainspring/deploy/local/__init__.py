"""A target's server on this machine: the same image, environment, probes and stop."""
