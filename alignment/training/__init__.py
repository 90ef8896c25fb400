"""Weights that learn: pretraining, supervised fine-tuning, and PPO in `ppo`."""
