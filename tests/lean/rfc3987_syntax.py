"""Stands before a package that only checks of bills of materials bring, on the path of programs that do not need it.

jsonschema imports the real one where it is installed, for the format of IRIs, and that builds a grammar for two seconds
in each process that speaks MCP.
"""

raise ImportError(__doc__)
