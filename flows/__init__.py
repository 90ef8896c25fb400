"""Prefect: the conductor. Flows know stages and their order, and nothing of torch.

What is done is written in the ledger, never here: deleting Prefect's database loses nothing.

Modules with flows or tasks must not say `from __future__ import annotations`: Prefect resolves the
types of their parameters when a deployment starts, and fails on postponed ones.
"""
