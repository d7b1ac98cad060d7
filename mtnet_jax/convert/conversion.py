"""Turns PyTorch's tensors into the variables of a network."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import linen as nn

from mtnet_jax.convert import layouts
from mtnet_jax.errors import UserError, printable
from mtnet_jax.runs import model as model_lib
from mtnet_jax.runs.leaves import leaf_paths
from mtnet_jax.runs.model import variable_shapes
from mtnet_jax.training.optim import CLASSIFIER

# BN counts its batches in PyTorch; the counter is not needed here.
_COUNTER = '.num_batches_tracked'
# The layer that sees the channels of pixels.
_FIRST_KERNELS = (
  'params/stem_spatial/kernel',
  'params/stem/conv/kernel',
  'params/stem/spatial/kernel',
  'params/fast_stem/conv/kernel',
)
_HEAD = f'params/{CLASSIFIER}/kernel'


class Conversion(NamedTuple):
  """The sources of a network's weights.

  Attributes:
    values: the leaves that were in the file, by path, float32.
    used: the tensors that each of them is made of.
    new_head: leaves of the class head, left to chance on purpose.
    missing: leaves that are not in the file, and the tensors that they would be
      made of; misshapen ones are among them.
    misshapen: the faults of those arrays, a sentence each.
    unused: tensors that no leaf is made of.
    ignored: the number of BN's counters of batches, which are not converted.
  """

  values: dict[str, np.ndarray]
  used: dict[str, tuple[str, ...]]
  new_head: tuple[str, ...]
  missing: dict[str, tuple[str, ...]]
  misshapen: tuple[str, ...]
  unused: tuple[str, ...]
  ignored: int


def convert(
  tensors: Mapping[str, np.ndarray],
  shapes: Mapping[str, tuple[int, ...]],
  layout: layouts.Layout,
  *,
  new_head: bool = False,
  bgr: bool = False,
) -> Conversion:
  """Makes the leaves of a network's variables.

  Args:
    tensors: the tensors of the file, by PyTorch's names.
    shapes: the shapes of the leaves, by path: 'params/stem_norm/scale'.
    layout: says which are made of which.
    new_head: leave the classifier out.
    bgr: the network was trained on frames with blue first: its first kernel's
      input channels are turned round, so that it takes red first.

  Returns:
    All that there is to tell, mismatches included.
  """
  values, used, missing, misshapen, head = {}, {}, {}, [], []
  taken = set()
  for path, shape in shapes.items():
    names = layout.sources(path)
    if new_head and path.split('/')[1] == CLASSIFIER:
      head.append(path)
      taken.update(names)
      continue
    if not names or any(name not in tensors for name in names):
      missing[path] = names
      continue
    taken.update(names)
    wanted = layouts.torch_shapes(path, shape)
    wrong = [name for name in names if tensors[name].shape not in wanted]
    if wrong:
      missing[path] = names
      misshapen.append(
        f'{wrong[0]} is {tensors[wrong[0]].shape}, {path} takes {wanted[0]}'
      )
      continue
    value = layouts.from_torch([tensors[name] for name in names], shape)
    if path == _HEAD:
      value = np.roll(value, -layout.head_first, axis=0)
    flipped = bgr and path in _FIRST_KERNELS
    values[path] = value[..., ::-1, :] if flipped else value
    used[path] = names
  left = [name for name in tensors if name not in taken]
  unused = tuple(name for name in left if not name.endswith(_COUNTER))
  return Conversion(
    values,
    used,
    tuple(head),
    missing,
    tuple(misshapen),
    unused,
    len(left) - len(unused),
  )


def complete(
  conversion: Conversion,
  model: nn.Module,
  config: ml_collections.ConfigDict,
) -> dict[str, Any]:
  """Returns all variables; those not in the file start as in training.

  Args:
    conversion: the conversion of the file.
    model: the network.
    config: a run's configuration, whose `seed` draws the initial values.
  """
  shape = model_lib.training_clip_shape(config)
  tree = variable_shapes(model, shape)
  values = dict(conversion.values)
  absent = {*conversion.new_head, *conversion.missing}
  if absent:

    @jax.jit  # what is not asked for is not computed
    def draw(key):
      variables = model.init(key, jnp.zeros((1, *shape)), train=False)
      return {
        p: v for p, v in leaf_paths(dict(variables)).items() if p in absent
      }

    values |= draw(jax.random.key(config.seed))
  leaves = [jnp.asarray(values[path], jnp.float32) for path in leaf_paths(tree)]
  return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def check(
  conversion: Conversion, source: str | pathlib.Path, allow_mismatch: bool
) -> None:
  """Raises a UserError unless all of a file went into all of the network.

  Args:
    conversion: the conversion of the file.
    source: the file, for messages.
    allow_mismatch: whether it is enough that some tensors fit.

  Raises:
    UserError: something is missing, misshapen or left over; or nothing fits.
  """
  if not conversion.values:
    raise UserError(
      f'Nothing in {source} (--from) fits this network. Give the '
      '--model that the weights belong to.'
    )
  problems = [*conversion.misshapen]
  absent = [
    name
    for path, names in conversion.missing.items()
    for name in names or (path,)
  ]
  if absent and not problems:
    problems.append(f'{len(absent)} are missing ({", ".join(absent[:3])})')
  if conversion.unused:
    few = ', '.join(map(printable, conversion.unused[:3]))
    problems.append(f'{len(conversion.unused)} are left over ({few})')
  if problems and not allow_mismatch:
    raise UserError(
      f'The tensors of {source} (--from) are not those of this network: '
      f'{"; ".join(problems[:3])}. Name the --model that they are of, '
      '--new_head for other classes, or --allow_mismatch to begin with those '
      'that fit.'
    )
