"""Forms of operations, for tests that hold all of them to one reference."""

import jax
import pytest

from mtnet_jax.ops import forms, native

# All but the rule itself, which chooses among them.
NAMES = [
  pytest.param(
    name,
    marks=pytest.mark.skipif(
      name == 'cpu_kernel' and not native.available(),
      reason='there is no C++ compiler',
    ),
  )
  for name in forms.NAMES
  if name != 'auto'
]
each = pytest.mark.parametrize('form', NAMES)


def jit(function, form, **kwargs):
  """The function as a program whose operations take a form."""

  def run(*args):
    with forms.use(form):
      return function(*args)

  return jax.jit(run, **kwargs)


def quick_jit(function, form):
  """The same for what runs once: compiled in half the time, and slow."""
  return jit(
    function,
    form,
    compiler_options={
      'xla_backend_optimization_level': 0,
      'xla_llvm_disable_expensive_passes': True,
    },
  )
