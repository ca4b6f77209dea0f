"""Whether a new model version may take over: every check of the gate, on one machine or in CI."""
