"""One version beside another under real traffic: who goes where, what came of it, and shadows off the caller's path."""
