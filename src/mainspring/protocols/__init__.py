"""Wire formats as thin translators: bytes in, bytes out."""
