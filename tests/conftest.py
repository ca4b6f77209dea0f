"""What holds for all tests: how property tests draw their examples."""

import os

from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is. On CI the examples are the same each time, so that a change
# is judged by what it changed; elsewhere they are drawn anew, and find more.
settings.register_profile(
    "mainspring",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("mainspring")
