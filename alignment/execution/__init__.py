"""Who does it? Runs stages: attempts, retries, isolated processes, the commit of outputs."""
