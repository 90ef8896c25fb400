"""Tools that know nothing of RLHF: files, locks, seeds, statistics, checkpoints, processes."""
