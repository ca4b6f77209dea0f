"""Auto-configuration: which adapter serves each port, and why. Opens nothing until a port is used."""
