"""Compiles the cases of operations for an accelerator that is not here.

  python -m tests.ops.compile_forms TARGET FORM NAME...

It needs libtpu or JAX's plugin for CUDA. Values and gradients of all cases in
bfloat16 are one program. The last line is the program's number of instructions.
"""

import math
import os
import sys

os.environ |= {
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'CUDA_VISIBLE_DEVICES': '-1',
  'JAX_PLATFORMS': 'cpu',
  'TPU_SKIP_MDS_QUERY': '1',
}

import jax
import jax.numpy as jnp
import numpy as np

from mtnet_jax.devices import targets
from mtnet_jax.ops import forms
from tests.ops.operation_cases import OPERATIONS


def main(target: str, form: str, *names: str) -> None:
  """Compiles cases of the operations with these names.

  Args:
    target: a target of `benchmarks.targets`.
    form: the form of each operation.
    *names: names of `OPERATIONS`.
  """
  cases = [case for name in names for case in OPERATIONS[name] if case.of_all]
  device = jax.sharding.SingleDeviceSharding(targets.devices(target)[0])

  def abstract(a):
    dtype = jnp.bfloat16 if a.dtype == np.float32 else a.dtype
    return jax.ShapeDtypeStruct(a.shape, dtype, sharding=device)

  def run(arrays):
    with forms.use(form):
      return [_differentiate(*each) for each in zip(cases, arrays, strict=True)]

  lowered = jax.jit(run).lower([[*map(abstract, c.arrays)] for c in cases])
  print(lowered.compile().as_text().count(' = '))


def _differentiate(case, arrays):
  function, floats = case.differentiable(arrays)
  width = arrays[0].shape[-2]
  with forms.side_by_side(width // math.gcd(width, 8)):
    y, vjp = jax.vjp(function, *floats)
    return y, vjp(y)


if __name__ == '__main__':
  main(*sys.argv[1:])
