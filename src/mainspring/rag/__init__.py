"""From documents to what answers a question: sync, parse, chunk, embed, index versions, retrieval."""
"""Documents to answers: sync, chunks, vectors, index versions, retrieval."""
