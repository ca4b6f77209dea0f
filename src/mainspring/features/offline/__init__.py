"""Features as they were known at the moments of a spine, and the same computed again to hold online answers against."""
