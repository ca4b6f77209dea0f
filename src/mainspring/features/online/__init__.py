"""Online reads: keys and rows as bytes, compiled read plans, materialisation, upserts."""
