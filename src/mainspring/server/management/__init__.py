"""What the management listener shows of a server, and what may be changed there."""
