"""Point-in-time tables, windows, logs of sources and feature views, and reads online: one definition, one answer."""
