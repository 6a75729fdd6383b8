"""What a key of a CI system may do: move versions of one application in one environment, and look. Nothing else."""
