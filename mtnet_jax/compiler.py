"""What XLA is told about a whole program."""

from collections.abc import Callable

import jax

from mtnet_jax import native


def jit(function: Callable, training: bool = False, **kwargs) -> Callable:
  """As `jax.jit`, of a whole program: it is not called in another.

  On one CPU the program calls our kernels, and so cannot be exported.

  Args:
    function: to be compiled.
    training: whether it is a train step.
    **kwargs: of `jax.jit`.
  """
  options = {}
  if jax.default_backend() == 'cpu':
    # Eigen multiplies matrices, as fast as YNN or faster, and our kernels sum.
    # XLA looks each call of YNN up in a list of all instructions where a
    # program is read again: minutes, for the largest networks.
    options['xla_cpu_experimental_ynn_fusion_type'] = (
      '' if native.available() else 'LIBRARY_FUSION_TYPE_REDUCE'
    )
  if training and native.on_one_cpu():
    # What blocks share is optimized before it is copied to each block.
    options['xla_cpu_opt_preset'] = 'CPU_OPT_PRESET_FAST_COMPILE'
  return jax.jit(
    native.allow(function), compiler_options=options or None, **kwargs
  )
