"""Where the rows of sources come from."""
