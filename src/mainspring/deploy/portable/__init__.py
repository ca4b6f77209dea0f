"""Steps that any orchestrator runs: one process, inputs from values and folders, the result as a folder."""
