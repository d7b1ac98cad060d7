"""Chooses functions by the platform that a program is lowered for.

One equation of a program stands for a pass of an operation. The pass is traced
when it is lowered, only in the form of that platform, and once for all equal
equations.
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir


@dataclasses.dataclass(frozen=True)
class _Pass:
  """A function of the leaves of its arguments.

  Attributes:
    function: a function of trees of arrays, and of static keywords.
    static: the keywords.
    tree: the arguments' structure.
    axes: the leaves' axes in each `vmap` around it, the innermost first.
  """

  function: Callable[..., Any]
  static: tuple[tuple[str, Hashable], ...]
  tree: Any
  axes: tuple[tuple[int | None, ...], ...] = ()

  def __call__(self, *leaves):
    def run(*leaves):
      args = jax.tree.unflatten(self.tree, leaves)
      return self.function(*args, **dict(self.static))

    for axes in self.axes:
      run = jax.vmap(run, in_axes=axes)
    return run(*leaves)

  def flat(self, *leaves):
    """Calls the pass and returns the leaves of its result."""
    return jax.tree.leaves(self(*leaves))

  def under(self, axes):
    """Returns the same pass with a `vmap` around it."""
    return dataclasses.replace(self, axes=(*self.axes, axes))


def where_it_is_lowered(functions, statics, types, *args):
  """Calls the function for the platform that the program is lowered for.

  Args:
    functions: functions by platform.
    statics: the keywords of each.
    types: a tree of the results' types; None: those of the default function.
    *args: trees of arrays.
  """
  leaves, tree = jax.tree.flatten(args)
  passes = {
    platform: _Pass(function, tuple(statics[platform].items()), tree)
    for platform, function in functions.items()
  }
  if types is None:
    arguments = (jax.ShapeDtypeStruct(a.shape, a.dtype) for a in leaves)
    types = _types(passes['default'], *arguments)
  primitive = _same if passes.keys() == {'default'} else _by_platform
  types, structure = jax.tree.flatten(types)
  types = tuple((t.shape, t.dtype) for t in types)
  return structure.unflatten(primitive.bind(*leaves, types=types, **passes))


@functools.lru_cache(maxsize=4096)
def _types(function, *types):
  return jax.eval_shape(function, *types)


def _make_primitive(name):
  """Makes a primitive whose parameters are passes with results of one type."""
  primitive = Primitive(f'mtnet_jax_{name}')
  primitive.multiple_results = True

  @primitive.def_abstract_eval
  def results(first, *_, types, **passes):
    return [
      first.update(shape=shape, dtype=dtype, weak_type=False)
      for shape, dtype in types
    ]

  @functools.lru_cache(maxsize=4096)
  def jitted(**params):
    return jax.jit(functools.partial(primitive.bind, **params))

  def batch(leaves, axes, types, **passes):
    under = {name: own.under(tuple(axes)) for name, own in passes.items()}
    (size,) = {
      leaf.shape[axis]
      for leaf, axis in zip(leaves, axes, strict=True)
      if axis is not None
    }
    types = tuple(((size, *shape), dtype) for shape, dtype in types)
    results = primitive.bind(*leaves, types=types, **under)
    return results, [0] * len(results)

  primitive.def_impl(lambda *leaves, **params: jitted(**params)(*leaves))
  batching.primitive_batchers[primitive] = batch
  return primitive


def _lower(platform):
  return lambda ctx, *leaves, types, **passes: mlir.lower_fun(
    passes[platform].flat
  )(ctx, *leaves)


_same, _by_platform = map(_make_primitive, ('form', 'form_by_platform'))
for _primitive in (_same, _by_platform):
  mlir.register_lowering(_primitive, _lower('default'))
for _name, _own in (
  ('cpu', 'cpu'), ('tpu', 'tpu'), ('cuda', 'gpu'), ('rocm', 'gpu'),
):  # fmt: skip
  mlir.register_lowering(_by_platform, _lower(_own), platform=_name)
