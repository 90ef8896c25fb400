"""What `align serve` keeps alive: deployments, workers, the watcher, recovery."""
