"""How often kill and property tests try: enough for each change, and very often when asked to."""

import os

THOROUGH = bool(os.environ.get("MAINSPRING_THOROUGH"))


def rounds(few: int, many: int) -> int:
    """`few` in the run of each change; `many` with ``MAINSPRING_THOROUGH=1``."""
    return many if THOROUGH else few


LONGEST_S = rounds(480, 7200)
"""So long a test, or what it needs beforehand, may take: a hang fails, and is told with the place where it waits."""
