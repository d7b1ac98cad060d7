"""Spatio-temporal action recognition in JAX and Flax."""
