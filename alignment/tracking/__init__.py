"""MLflow, the memory of a program: written from the ledger, and rebuilt from it at any time.

`observer` is what a runner is given; it starts `follow`, a process of its own, so that neither the
import of MLflow nor a slow or broken store ever holds a stage up. `follow` calls `sync`, which
compares ledger and store and writes what is missing; `rebuild` does the same into an empty store.
"""
