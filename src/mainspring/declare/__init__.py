"""What the user says: frozen records and decorators. Pure: no I/O, no clock, no adapter."""
