"""Bodies of many content types, as the containers of the clouds take them: JSON, lines, CSV, NPY, Arrow, Parquet."""
