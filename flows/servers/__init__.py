"""Prefect's and MLflow's servers: their environment, their start, their pages."""
