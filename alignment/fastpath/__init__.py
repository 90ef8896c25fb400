"""CPU passes written for small Llamas. Optional: every result can be had without it."""
