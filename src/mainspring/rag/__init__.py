"""From documents to what answers a question: sync, parse, chunk, embed, index versions, retrieval."""
