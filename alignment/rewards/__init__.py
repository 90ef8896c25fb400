"""The two reward models: training, measurement, combination into one reward."""
