"""The flows and tasks themselves: a program, a version, an intake, a stage."""
