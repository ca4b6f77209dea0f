"""Server-rendered pages and their JSON twins."""
