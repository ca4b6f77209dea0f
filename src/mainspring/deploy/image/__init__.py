"""The image builder: OCI images without a daemon, from a lock file, without importing the user's code."""
