"""TRL's trainers extended by transforms: data, arguments, the mixin, checkpoints, logs and plots."""
