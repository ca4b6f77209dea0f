"""Documents to answers: sync, chunks, vectors, index versions, retrieval."""
