"""Blocks of a stage, of which equal ones are traced once.

The blocks of a stage after its first differ in their variables alone. One
function stands for all of them, so that JAX traces and differentiates it once.
It may be a function of the program too: a CPU's compiler then optimizes it
once, and computes it again in the backward pass where that is asked for. In
line it would find the same values in the forward pass, and keep those instead.
"""

from collections.abc import Sequence

import jax
from flax import linen as nn

from mtnet_jax.layers import norm
from mtnet_jax.ops import forms
from mtnet_jax.ops.calls import keep_call
from mtnet_jax.typing import Array, Float


def run(
  blocks: Sequence[nn.Module],
  x: Float[Array, 'n t h w c'],
  shared: bool,
  rematerialize: bool,
  *,
  keep_calls: bool = False,
  period: int = 1,
) -> tuple[Float[Array, 'n t2 h2 w2 c2'], dict[str, Float[Array, '']]]:
  """Applies a stage's blocks one after the other.

  Args:
    blocks: the stage's blocks in order, called in their parent's compact
      method. Those after the first are alike but for their variables, or every
      `period`-th of them is.
    x: the first block's input.
    shared: whether blocks that are alike share a function; if not, each block
      is one of its own, to be initialized or watched.
    rematerialize: whether nothing but each shared block's input is kept for the
      backward pass.
    keep_calls: whether shared blocks stay functions of the program, where it
      can have them. Convolutions of rows and columns should not: XLA brings
      those of a CPU into their fast form in the main function alone.
    period: number of blocks from one to the next that is alike, at least 1.

  Returns:
    What the last block returns, and by name what blocks return besides, None
    left out.
  """
  functions = []
  shares = {}
  for i, block in enumerate(blocks):
    if not shared:
      x, share = block(x)
    elif i <= period:
      functions.append(_share(block, rematerialize, keep_calls))
      x, share = functions[i](block, x)
    else:
      x, share = functions[1 + (i - 1) % period](block, x)
    if share is not None:
      shares[block.name] = share
  return x, shares


def _share(block, rematerialize, keep_calls):
  """`(block, x) -> block(x)`, one function for all blocks like this one."""
  mutable = [
    name
    for name in ('batch_stats', norm.MOMENTS)
    if block.is_mutable_collection(name)
  ]
  unbound = block.clone(parent=None, name=None)

  def apply(x, variables, rngs):
    return unbound.apply(variables, x, mutable=mutable, rngs=rngs)

  if rematerialize:
    apply = jax.checkpoint(apply)
  apply = jax.jit(apply)

  def call(block, x):
    has_draws = block.has_rng('pooling')
    rngs = {'pooling': block.make_rng('pooling')} if has_draws else {}
    variables = {
      name: block.variables[name]
      for name in ('params', 'batch_stats')
      if name in block.variables
    }
    # Not on several devices: they would exchange the gradients of each block
    # inside its call rather than those of all blocks at once.
    keeps_call = keep_calls and forms.traces_for_one_cpu()
    (x, share), updated = apply(
      keep_call(x) if keeps_call else x, variables, rngs
    )
    if keeps_call:
      x = keep_call(x)
    for collection, values in updated.items():
      for name, value in values.items():
        block.put_variable(collection, name, value)
    return x, share

  return call
