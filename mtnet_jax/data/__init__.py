"""How do videos become batches?

Nothing in here imports jax: the loader's processes never touch a device.
"""
