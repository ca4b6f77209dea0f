"""Views that a function of the user's makes: running it, its columns, and the logs that come of it."""
