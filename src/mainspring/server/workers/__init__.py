"""Several processes that answer at the same port, and the parent that keeps them."""
