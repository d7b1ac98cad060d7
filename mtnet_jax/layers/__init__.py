"""Layers, one idea a file. They know arrays only."""
