"""Spatio-temporal action recognition in JAX and Flax.

"The thesis" is A. Stergiou, *Efficient Modelling Across Time of Human Actions
and Interactions*, Utrecht University, 2021.
"""
