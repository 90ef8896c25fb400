"""Human feedback in: formats, checks, the store of batches, the held-out split, the inbox."""
