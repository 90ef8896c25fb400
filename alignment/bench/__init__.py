"""How fast is it here? `align bench`: intake, reward models, sampling, PPO."""
