"""Videos to batches. No jax in here: loader workers never touch a device."""
