"""Which form of an operation does a program get?

An operation has one definition, the few lines of `jax.numpy` that a reader of
the thesis expects, and perhaps other forms: the same function, for one kind of
program.

* `xla`: fast wherever there is nothing better.
* `cpu`, `gpu`, `tpu`: fast as XLA's compiler for that platform makes machine
  code of it.
* `cpu_kernel`: in C++ (`native`), for float32 on one CPU device.
* `onnx`: of operators that ONNX has.

One rule, `'auto'`, chooses by the platform that a program is lowered for,
whatever machine traces it. A program for a CPU takes the first existing form of
`cpu_kernel`, `cpu`, `xla` and the definition; one for another platform takes
its own form, `xla` or the definition. Kernels are for programs of one device. A
trace does not know on how many devices it will run, so the caller who compiles
it says so by `use('auto', mesh)`.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from mtnet_jax.ops import native
from mtnet_jax.ops.lowering import where_it_is_lowered

# The forms to try in turn, before the definition.
_FALLBACKS: Mapping[str, tuple[str, ...]] = {
  'definition': (),
  'xla': ('xla',),
  'cpu': ('cpu', 'xla'),
  'cpu_kernel': ('cpu_kernel', 'cpu', 'xla'),
  'gpu': ('gpu', 'xla'),
  'tpu': ('tpu', 'xla'),
  'onnx': ('onnx', 'xla'),
}
NAMES = ('auto', *_FALLBACKS)


class Form(NamedTuple):
  """A form with its own backward pass.

  All forms of an operation keep the same values, because the form of the
  backward pass is chosen independently. If `traces_for_tpu()`, both passes are
  the TPU's and may keep other values.

  Attributes:
    forward: `(*args, **static) -> (result, kept)`.
    backward: `(kept, d_result, **static) -> d_args`, with None for arguments
      that are no floats.
  """

  forward: Callable[..., tuple[Any, Any]]
  backward: Callable[..., tuple[Any, ...]]


class _Choice(NamedTuple):
  """The choice of forms that is in force.

  Attributes:
    name: the name of a form, or 'auto'.
    platform: the platform that programs are made for, where known.
    devices: the number of devices, 0 where unknown.
    groups: into how many groups each row is cut whose columns lie side by side
      on a TPU; 0: it is not.
  """

  name: str
  platform: str | None = None
  devices: int = 0
  groups: int = 0


# The choice is part of the key under which JAX caches traces.
_choice = jax.make_user_context(_Choice('auto'))


@contextlib.contextmanager
def use(name: str, mesh: jax.sharding.Mesh | None = None) -> Iterator[None]:
  """Makes operations that are traced inside the context take a form.

  Args:
    name: `'auto'`, which chooses by the platform that the program is lowered
      for; or a form, whatever the platform. An operation that does not have it
      takes the next best, in the end its definition.
    mesh: the devices that the program will run on; None: not known, and there
      may be several. Of `'auto'`.

  Raises:
    ValueError: an unknown name.
  """
  if name not in NAMES:
    raise ValueError(f'Unknown form {name!r}: choose one of {NAMES}.')
  choice = _Choice(name)
  if mesh is not None:
    choice = _Choice(name, mesh.devices.flat[0].platform, mesh.size)
  with _choice(choice):
    yield


def is_one_cpu(mesh: jax.sharding.Mesh | None) -> bool:
  """Returns whether a program for these devices is for a single CPU device."""
  return (
    mesh is not None
    and mesh.size == 1
    and mesh.devices.flat[0].platform == 'cpu'
  )


def uses_kernels(mesh: jax.sharding.Mesh | None) -> bool:
  """Returns whether a program for these devices may call kernels."""
  return is_one_cpu(mesh) and native.available()


def traces_for_one_cpu() -> bool:
  """Returns whether what is traced here will run on a single CPU device."""
  return _choice.value[1:3] == ('cpu', 1)


def traces_for_tpu() -> bool:
  """Returns whether what is traced here is known to be for TPUs."""
  name, platform, *_ = _choice.value
  return name == 'tpu' or (name, platform) == ('auto', 'tpu')


@contextlib.contextmanager
def side_by_side(groups: int) -> Iterator[None]:
  """Makes forms for TPUs lay columns side by side.

  Args:
    groups: into how many groups the rows of all maps are cut whose columns they
      are; see `lanes.fitting_groups`. 0: they are not.
  """
  groups = groups if traces_for_tpu() else 0
  with _choice(_choice.value._replace(groups=groups)):
    yield


_KEPT = 'mtnet_jax_kept'
# The policy of `jax.checkpoint`: save what `keep` was given, nothing else.
keeps = jax.checkpoint_policies.save_only_these_names(_KEPT)


def keep(values: Any) -> Any:
  """Returns arrays that a TPU's backward pass keeps, where there is a choice.

  They are values that take long to recompute: sums, products, recurrences.

  Args:
    values: arrays, or trees of them.
  """
  if not traces_for_tpu():
    return values
  return jax.tree.map(lambda a: checkpoint_name(a, _KEPT), values)


class Operation:
  """A function of arrays in its definition and its forms.

  All are functions of the same arrays and of the same static keywords.
  """

  def __init__(
    self,
    definition: Callable[..., Any],
    kernel_takes: Callable[..., bool] = lambda *args, **static: True,
    **forms: Form | Callable[..., Any],
  ):
    """Collects the forms.

    Args:
      definition: the operation; differentiated by JAX.
      kernel_takes: function of the arguments that says whether the kernel in
        C++ can take them, their dtypes apart.
      **forms: forms by name; functions are differentiated by JAX. That named
        `tpu` takes a keyword `groups`: see `side_by_side`.
    """
    assert forms.keys() <= _FALLBACKS.keys(), forms.keys()
    self._kernel_takes = kernel_takes
    self._forms = {'definition': definition, **forms}
    self._pairs = {
      name: form if isinstance(form, Form) else by_autodiff(form)
      for name, form in self._forms.items()
    }

  def __call__(self, *args: Any, **static: Hashable) -> Any:
    """Computes the operation in the form that the program gets.

    Args:
      *args: arrays, or trees of them.
      **static: hashable arguments that are no arrays.
    """
    name = 'tpu' if traces_for_tpu() else _choice.value.name
    if name != 'auto':
      name = self._find(_FALLBACKS[name], args, static)
      return self._run({'default': name}, args, static, _here)
    cpu = 'cpu_kernel' if traces_for_one_cpu() else 'cpu'
    names = {'cpu': cpu, 'default': 'xla'}
    names |= {platform: platform for platform in ('gpu', 'tpu')}
    names = {
      platform: self._find(_FALLBACKS[name], args, static)
      for platform, name in names.items()
    }
    return self._run(names, args, static, where_it_is_lowered)

  def _find(self, names, args, static):
    """Returns the first form that exists and can take these arguments."""
    for name in names:
      if name in self._forms and (
        name != 'cpu_kernel' or self._kernel_can(args, static)
      ):
        return name
    return 'definition'

  def _kernel_can(self, args, static):
    dtypes = [a.dtype for a in jax.tree.leaves(args)]
    floats = [d for d in dtypes if jnp.issubdtype(d, jnp.floating)]
    return (
      all(d == jnp.float32 for d in floats)
      and self._kernel_takes(*args, **static)
      and native.available()
    )

  def _run(self, names, args, static, place):
    """Runs the forms of the platforms; `place` puts a pass into the program."""
    more = {'tpu': {'groups': _choice.value.groups}}
    statics = {p: static | more.get(name, {}) for p, name in names.items()}
    if len(set(names.values())) == 1:
      names = {'default': names['default']}
      form = self._forms[names['default']]
      if not isinstance(form, Form):
        return form(*args, **statics['default'])

    # The function is traced once for all equal calls, in the present context.
    names, statics = (tuple(d.items()) for d in (names, _hashable(statics)))
    return _function(self, names, statics, place)(*args)


def by_autodiff(function: Callable[..., Any]) -> Form:
  """Returns a form that keeps its arguments, and recomputes everything else.

  Args:
    function: a function of floating-point arrays and static keywords.
  """

  def forward(*args, **static):
    return function(*args, **static), args

  def backward(kept, d_result, **static):
    _, vjp = jax.vjp(functools.partial(function, **static), *kept)
    # For arguments that are no floats JAX gives gradients without a value.
    return jax.tree.map(
      lambda d: None if d.dtype == jax.dtypes.float0 else d, vjp(d_result)
    )

  return Form(forward, backward)


def _hashable(statics):
  return {name: tuple(static.items()) for name, static in statics.items()}


@functools.lru_cache(maxsize=1024)
def _function(operation, names, statics, place):
  """Returns an operation with both passes, in the forms of the platforms."""
  statics = {name: dict(static) for name, static in statics}

  def passes(which):
    functions = {p: operation._pairs[name][which] for p, name in names}
    return functools.partial(place, functions, statics)

  def forward(*args):
    result, arrays = passes(0)(None, *args)
    types = jax.tree.map(_type_of_gradient, args)
    return result, _Kept(arrays, *jax.tree.flatten(types))

  def backward(kept, d_result):
    types = jax.tree.unflatten(kept.structure, kept.types)
    return passes(1)(types, kept.arrays, d_result)

  function = jax.custom_vjp(lambda *args: forward(*args)[0])
  function.defvjp(forward, backward)
  return jax.jit(function, inline=True)


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=['arrays'],
  meta_fields=['types', 'structure'],
)
@dataclasses.dataclass(frozen=True)
class _Kept:
  """The values that the backward pass gets.

  Attributes:
    arrays: the arrays that the forward pass keeps.
    types: the types of the gradients.
    structure: the tree structure of the gradients.
  """

  arrays: Any
  types: list[jax.core.ShapedArray]
  structure: Any


def _type_of_gradient(a):
  is_float = jnp.issubdtype(jnp.result_type(a), jnp.inexact)
  return jax.typeof(a).update(weak_type=False) if is_float else None


def _here(functions, statics, _, *args):
  """Runs the only function of a pass in line."""
  return functions['default'](*args, **statics['default'])
