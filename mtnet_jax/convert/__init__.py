"""Weights of other authors' PyTorch networks, turned into runs."""
