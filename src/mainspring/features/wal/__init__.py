"""The write-ahead log of pushes: what was acknowledged and is not in the tables yet."""
