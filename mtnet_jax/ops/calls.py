"""Functions of a program that a CPU's compiler must not inline.

XLA inlines the functions that JAX traces once and calls often. Where it should
not, the call carries an attribute that XLA's inliner knows; the compilers of
other platforms, some of which know no calls, must not see it.
"""

from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from mtnet_jax.typing import Array

_keep_call = Primitive('mtnet_jax_keep_call')
_keep_call.def_impl(lambda x: x)
_keep_call.def_abstract_eval(lambda x: x)
# The gradient's call is kept, too.
ad.deflinear2(_keep_call, lambda gradient, _: (_keep_call.bind(gradient),))
batching.defvectorized(_keep_call)


def keep_call(x: Array) -> Array:
  """Returns x, and marks the call that x comes from to be kept on a CPU.

  The call that x's gradient comes from is marked too. Nothing is marked where x
  does not come from a jitted function, or for another platform.
  """
  return _keep_call.bind(x)


def _lower_on_cpu(_, x):
  operation = getattr(x.owner, 'operation', None)
  if operation is not None and operation.name == 'func.call':
    attribute = mlir.ir.StringAttr.get('false')
    operation.attributes['mhlo.frontend_attributes'] = mlir.ir.DictAttr.get(
      {'inlineable': attribute}
    )
  return [x]


mlir.register_lowering(_keep_call, lambda _, x: [x])
# The lowering is not cached: a cached one would be a function of its own, which
# does not contain the call.
mlir.register_lowering(
  _keep_call, _lower_on_cpu, platform='cpu', cacheable=False
)
