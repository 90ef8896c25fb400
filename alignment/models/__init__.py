"""A model in memory and on disk: loading, adapters, export, conversations into tokens."""
