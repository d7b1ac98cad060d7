"""What a model costs and how its results compare."""
