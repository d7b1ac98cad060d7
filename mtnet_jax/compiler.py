"""What XLA is told about a whole program."""

from collections.abc import Callable

import jax

from mtnet_jax.models import repetition


def jit(function: Callable, training: bool = False, **kwargs) -> Callable:
  """As `jax.jit`, of a whole program: it is not called in another.

  Args:
    function: to be compiled.
    training: whether it is a train step.
    **kwargs: of `jax.jit`.
  """
  options = {}
  if jax.default_backend() == 'cpu':
    # YNN sums, Eigen multiplies matrices: as fast or faster, a fifth less to
    # compile, and half as many calls to look up where a program is read again.
    options['xla_cpu_experimental_ynn_fusion_type'] = (
      'LIBRARY_FUSION_TYPE_REDUCE'
    )
  if training and repetition.has_functions():
    # What blocks share is optimized before it is copied to each block.
    options['xla_cpu_opt_preset'] = 'CPU_OPT_PRESET_FAST_COMPILE'
  return jax.jit(function, compiler_options=options or None, **kwargs)
