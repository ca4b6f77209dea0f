"""One file per port: a Protocol, its records and its capabilities; nothing else."""
