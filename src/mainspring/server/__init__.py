"""The process: the loop that builds, the listeners, their lifecycle and limits."""
