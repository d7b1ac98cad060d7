"""Runs the blocks of a stage, and traces equal blocks once.

The blocks of a stage after the first differ only in their variables. One
function stands for all of them, so that JAX traces and differentiates it once.

On a TPU it is the body of a loop over their variables: compiling takes a time
that grows with the program. What the backward pass needs of a round then goes
through arrays of all rounds, which costs as much as a pass of BN. So only the
values that `forms.keep` names are stored there, and the others are computed
again.

For a CPU it may be a function of the program: the compiler then optimizes it
once, and recomputes it in the backward pass where that is asked for. If the
blocks stood in line, the compiler would find the same values in the forward
pass and keep those instead.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
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
  if not shared:
    shares = {}
    for block in blocks:
      x, shares[block.name] = block(x)
  else:
    x, shares = _run_shared(blocks, x, rematerialize, keep_calls, period)
  return x, {name: s for name, s in shares.items() if s is not None}


def _run_shared(blocks, x, rematerialize, keep_calls, period):
  # Several devices would exchange the gradients of each block inside its call,
  # instead of those of all blocks at once.
  keep_calls = keep_calls and forms.traces_for_one_cpu()
  first, rest = blocks[:1], blocks[1:]
  functions = [
    _function(block, rematerialize) for block in blocks[: 1 + period]
  ]
  x, shares = _in_turn(functions[:1], first, x, keep_calls)
  functions = functions[1:]
  groups = len(rest) // period
  # A loop over two rounds of one block costs more than it saves.
  if forms.traces_for_tpu() and groups > 1 and groups * period > 2:
    looped, rest = rest[: groups * period], rest[groups * period :]
    x, more = _in_a_loop(functions, looped, x, rematerialize)
    shares |= more
  x, more = _in_turn(functions, rest, x, keep_calls)
  return x, shares | more


def _in_turn(functions, blocks, x, keep_calls):
  shares = {}
  for i, block in enumerate(blocks):
    if keep_calls:
      x = keep_call(x)
    result = functions[i % len(functions)](x, *_read(block))
    (x, shares[block.name]), updated = result
    if keep_calls:
      x = keep_call(x)
    _write(block, updated)
  return x, shares


def _in_a_loop(functions, blocks, x, rematerialize):
  """Does the same as `_in_turn` for as many blocks as fill whole rounds."""
  period = len(functions)
  rounds = [
    [_read(block) for block in blocks[i : i + period]]
    for i in range(0, len(blocks), period)
  ]
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rounds)

  def body(x, arguments):
    results = []
    for function, own in zip(functions, arguments, strict=True):
      (x, share), updated = function(x, *own)
      results.append((share, updated))
    return x, results

  if not rematerialize:
    body = jax.checkpoint(body, prevent_cse=False, policy=forms.keeps)
  x, results = jax.lax.scan(body, x, stacked)
  shares = {}
  for i, block in enumerate(blocks):
    own = jax.tree.map(lambda leaf, i=i: leaf[i // period], results[i % period])
    shares[block.name], updated = own
    _write(block, updated)
  return x, shares


def _function(block: nn.Module, rematerialize: bool) -> Callable:
  """`(x, variables, rngs) -> block(x), updated`, for all blocks like this."""
  mutable = [
    name
    for name in ('batch_stats', norm.MOMENTS)
    if block.is_mutable_collection(name)
  ]
  unbound = block.clone(parent=None, name=None)

  def apply(x, variables, rngs):
    return unbound.apply(variables, x, mutable=mutable, rngs=rngs)

  return jax.jit(jax.checkpoint(apply) if rematerialize else apply)


def _read(block: nn.Module) -> tuple[dict[str, Any], dict[str, Array]]:
  """A block's variables, and its random keys."""
  has_draws = block.has_rng('pooling')
  rngs = {'pooling': block.make_rng('pooling')} if has_draws else {}
  variables = {
    name: block.variables[name]
    for name in ('params', 'batch_stats')
    if name in block.variables
  }
  return variables, rngs


def _write(block: nn.Module, updated: dict[str, Any]) -> None:
  for collection, values in updated.items():
    for name, value in values.items():
      block.put_variable(collection, name, value)
