"""The statistics of monitoring, as pure functions on values: no clock, no store, no thread."""
