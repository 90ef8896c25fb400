"""Iterative RLHF alignment in the manner of Llama 2: SFT, then RLHF-V1 ... RLHF-V5."""

__version__ = "0.1.0"
