"""Who computes answers? Our own loop, vLLM in this process, or a server."""
