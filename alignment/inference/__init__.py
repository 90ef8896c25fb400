"""Who computes answers? Our own loop, a vLLM server, an OpenAI-compatible endpoint."""
