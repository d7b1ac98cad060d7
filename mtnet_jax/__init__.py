"""Spatio-temporal action recognition in JAX and Flax.

Example:
  predictor = mtnet_jax.load('runs/demo')  # a run, an export, a hub folder
  predictor('wave.mp4').top(3)
  model = mtnet_jax.build('mtnet_m', num_classes=400)

"The thesis" is A. Stergiou, *Efficient Modelling Across Time of Human Actions
and Interactions*, Utrecht University, 2021.
"""

import importlib

# Where each name comes from. Nothing is imported before it is asked for: the
# processes that load videos import parts of this package, and never jax.
_HOMES = {
  'Predictor': 'mtnet_jax.prediction',
  'build': 'mtnet_jax.models',
  'load': 'mtnet_jax.prediction',
}
__all__ = ['Predictor', '__version__', 'build', 'load']


def __getattr__(name: str):
  if name == '__version__':
    from importlib import metadata

    return metadata.version('mtnet_jax')
  if name in _HOMES:
    return getattr(importlib.import_module(_HOMES[name]), name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
  return sorted([*globals(), *__all__])
