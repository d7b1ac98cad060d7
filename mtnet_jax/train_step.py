"""The train step, and the pass that measures BN's statistics."""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from mtnet_jax import (
  compiler,
  losses,
  metrics,
  optim,
  preprocessing,
  state,
)
from mtnet_jax.layers import norm
from mtnet_jax.state import TrainState
from mtnet_jax.typing import Batch

Metrics = dict[str, jax.Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_train_step(
  model: nn.Module,
  schedule: optax.Schedule,
  tx: optax.GradientTransformation,
  seed: int,
  shardings: TrainState | None = None,
  trained: str = 'all',
) -> TrainStep:
  """A jitted, pure `(state, batch) -> (state, metrics)` that donates the state.

  It is compiled once for each shape of the clips.

  Args:
    model: from `mtnet_jax.models.build`.
    schedule: the learning rate that `tx` follows, for the record.
    tx: the optimiser.
    seed: of dropout and of stochastic pooling; a step's randomness is a
      function of (seed, step).
    shardings: of the state, from `state.shardings`; None: as the arguments lie.
    trained: one of `optim.TRAINED`; gradients of nothing else are computed.

  Returns:
    The function. `batch` holds `clips` uint8 `(n, t, h, w, c)` and `labels`
    `(n,)`, and perhaps `notes`, numbers `(n,)` by name. The metrics are float32
    scalars: `loss` in nats, `top1`, `learning_rate`, `gradient_norm`,
    `parameter_norm` (after the update, BN's moving statistics included),
    `gate_open/BLOCK`, the share of clips whose temporal gate is open; the sums
    of the notes; where the loss is scaled, `loss_scale` and `overflow`, 1 for a
    step whose gradients are not finite and which therefore changes nothing.
  """
  whole = shardings and state.whole(shardings)

  def train_step(current, batch):
    key = jax.random.fold_in(jax.random.key(seed), current.step)
    rngs = {'dropout': key, 'pooling': jax.random.fold_in(key, 1)}
    clips = preprocessing.prepare(batch['clips'], model)

    def loss_fn(params):
      params = optim.freeze(params, trained)
      (logits, endpoints), updated = model.apply(
        {'params': params, 'batch_stats': current.batch_stats},
        clips,
        train=True,
        mutable=['batch_stats'],
        rngs=rngs,
      )
      loss = losses.cross_entropy(logits, batch['labels']).mean()
      return loss, (logits, endpoints, updated.get('batch_stats', {}))

    params = _place(current.params, whole and whole.params)
    scale, finite, (loss, aux), gradients = _differentiate(
      loss_fn, current.loss_scale, params
    )
    logits, endpoints, batch_stats = aux
    gradients = _place(gradients, shardings and shardings.params)
    updates, opt_state = tx.update(gradients, current.opt_state, current.params)
    following = TrainState(
      step=current.step + 1,
      params=optax.apply_updates(current.params, updates),
      batch_stats=batch_stats,
      opt_state=opt_state,
      loss_scale=scale,
    )
    values = {
      'loss': loss,
      'top1': metrics.top_k_correct(logits, batch['labels'], 1).mean(
        dtype=jnp.float32
      ),
      'learning_rate': schedule(current.step),
      'gradient_norm': metrics.tree_norm(gradients),
    }
    if scale is not None:
      following = _unless_overflow(finite, following, current)
      values['gradient_norm'] = jnp.where(finite, values['gradient_norm'], 0)
      values |= {'loss_scale': scale.scale, 'overflow': 1.0 - finite}
    following = _place(following, shardings)
    values['parameter_norm'] = metrics.tree_norm(
      (following.params, following.batch_stats)
    )
    for block, share in endpoints['gate_open'].items():
      values[f'gate_open/{block}'] = share
    for name, numbers in batch.get('notes', {}).items():
      values[name] = numbers.sum()
    return following, values

  return compiler.jit(train_step, training=True, donate_argnums=0)


def _differentiate(loss_fn, loss_scale, params):
  """The next scale, whether all is finite, the loss and more, gradients."""
  if loss_scale is not None:
    return loss_scale.value_and_grad(loss_fn, has_aux=True)(params)
  value, gradients = jax.value_and_grad(loss_fn, has_aux=True)(params)
  return None, True, value, gradients


def _unless_overflow(finite, following, current):
  """The following state, or where not finite the present one, a step later."""

  def choose(new, old):
    # Counts go on: the optimiser's learning rate follows the step.
    counts = jnp.issubdtype(old.dtype, jnp.integer)
    return new if counts else jnp.where(finite, new, old)

  kept = jax.tree.map(
    choose,
    (following.params, following.batch_stats, following.opt_state),
    (current.params, current.batch_stats, current.opt_state),
  )
  params, batch_stats, opt_state = kept
  return following.replace(
    params=params, batch_stats=batch_stats, opt_state=opt_state
  )


def _place(tree, shardings):
  """The tree, laid out on the devices as told; None: as it comes."""
  if shardings is None:
    return tree
  return jax.lax.with_sharding_constraint(tree, shardings)


def make_precise_norm(
  model: nn.Module, shardings: TrainState | None = None
) -> Callable[[TrainState, Iterable[jax.Array]], TrainState]:
  """A function that replaces BN's moving statistics by those of given clips.

  Moving averages lag behind the parameters, and under multigrid training they
  mix shapes. The precise ones are the mean and variance of all sub-batches of
  clips together, each passed as in training, with the present parameters.
  Source: Y. Wu and J. Johnson, *Rethinking "Batch" in BatchNorm*, 2021.

  Args:
    model: from `mtnet_jax.models.build`.
    shardings: of the state, from `state.shardings`; None: as it lies.

  Returns:
    `(state, iterable of uint8 (n, t, h, w, c)) -> state`; the same state where
    the model's BN is frozen.
  """
  if model.freeze_norm:
    return lambda current, _: current
  whole = shardings and state.whole(shardings)

  @compiler.jit
  def measure(current, clips):
    clips = preprocessing.prepare(clips, model)
    key = jax.random.key(0)
    params = _place(current.params, whole and whole.params)
    _, updated = model.apply(
      {'params': params, 'batch_stats': current.batch_stats},
      clips,
      train=True,
      mutable=['batch_stats', norm.MOMENTS],
      rngs={'dropout': key, 'pooling': key},
    )
    return norm.raw_moments(updated[norm.MOMENTS])

  def precise_norm(current, batches):
    count, total = 0, None
    for clips in batches:
      raw = measure(current, clips)
      total = raw if total is None else jax.tree.map(jnp.add, total, raw)
      count += 1
    mean = jax.tree.map(lambda leaf: leaf / count, total)
    return current.replace(batch_stats=norm.to_statistics(mean))

  return precise_norm
