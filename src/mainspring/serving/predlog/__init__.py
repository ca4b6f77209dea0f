"""The prediction log: memory-mapped segments that survive the process, then Parquet, then the lake."""
