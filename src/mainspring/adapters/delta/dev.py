"""How to get one locally: nothing to do."""

__all__ = ["HOW"]

HOW = "nothing to install beyond mainspring[tabular]: the folder appears in the project's state folder"
