"""The Model Context Protocol: indexes and assistants as tools, documents as resources, over HTTP and stdio."""
