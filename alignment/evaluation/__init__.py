"""How good is a version? Measuring only; `reporting` shows what was measured."""
