"""What adapters share that speak HTTP to an engine: the client, events by SSE, the OpenAI wire, what is under way."""
