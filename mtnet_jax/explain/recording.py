"""Records the inputs and outputs of a network's modules for a clip."""

import difflib
import functools
from collections.abc import Sequence
from typing import Any

import jax
from flax import linen as nn

from mtnet_jax.errors import UserError
from mtnet_jax.typing import Array, Float

Recorded = dict[str, dict[str, Array]]


def record(
  model: nn.Module,
  variables: dict,
  clips: Float[Array, 'n t h w c'],
  whole: Sequence[str] = (),
) -> tuple[Float[Array, 'n k'], dict[str, Any], Recorded]:
  """Runs a network in inference mode and keeps what was asked for.

  The program is compiled once for each network, shape of clips and `whole`.

  Args:
    model: a network from `mtnet_jax.models.build`.
    variables: the model's.
    clips: normalized pixels, in the network's dtype.
    whole: paths of the modules to keep, as `stage_4_block_7/project`.

  Returns:
    The logits, the endpoints, and by path what each module took and gave:
    `input`, the first argument, and `output`, the (first) result.

  Raises:
    UserError: the network has no module of that path.
  """
  return _record(model, tuple(whole), variables, clips)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _record(model, paths, variables, clips):
  seen, recorded = [], {}

  def record_call(run, args, kwargs, context):
    result = run(*args, **kwargs)
    if context.method_name == '__call__':
      path = '/'.join(context.module.path)
      seen.append(path)
      if path in paths:
        output = result[0] if isinstance(result, tuple) else result
        recorded[path] = {'input': args[0], 'output': output}
    return result

  with nn.intercept_methods(record_call):
    logits, endpoints = model.apply(variables, clips, train=False)
  for path in paths:
    if path not in recorded:
      _fail(path, seen)
  return logits, endpoints, recorded


def _fail(path, seen):
  near = difflib.get_close_matches(path, seen, n=3) or seen[:3]
  raise UserError(
    f'The network has no module {path!r}. Near are '
    f'{", ".join(map(repr, near))}; the paths are those of its parameters.'
  )
