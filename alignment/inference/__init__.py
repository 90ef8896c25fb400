"""Who computes answers? Our own loop, a vLLM server that we start, or an endpoint."""
