"""Procedural people as a data set of real video files; see README.md."""
