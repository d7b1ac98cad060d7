"""Trains the runs of a table of the thesis and compares them."""
