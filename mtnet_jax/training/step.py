"""Makes the train step, and the function that measures BN's statistics."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from mtnet_jax import metrics as metrics_lib
from mtnet_jax import preprocessing
from mtnet_jax.data.batches import Batch
from mtnet_jax.devices import compiler
from mtnet_jax.devices import mesh as mesh_lib
from mtnet_jax.layers import norm
from mtnet_jax.ops.tree_norm import tree_norm
from mtnet_jax.runs.state import TrainState
from mtnet_jax.training import losses, mixing, optim
from mtnet_jax.training.mixing import Mixing
from mtnet_jax.typing import Array

Metrics = dict[str, jax.Array]
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_train_step(
  model: nn.Module,
  schedule: optax.Schedule,
  tx: optax.GradientTransformation,
  seed: int,
  mesh: jax.sharding.Mesh | None = None,
  shardings: TrainState | None = None,
  trained: str = 'all',
  *,
  accumulate: int = 1,
  ema_decay: float = 0.0,
  label_smoothing: float = 0.0,
  mix: Mixing | None = None,
  gate_after: int = 0,
  regularization_loss: float = 0.0,
) -> TrainStep:
  """Returns a jitted, pure train step that donates the state.

  It is `(state, batch) -> (state, metrics)`.

  It is compiled once for each shape of the clips.

  Args:
    model: a network from `mtnet_jax.models.build`.
    schedule: the learning rate that `tx` follows, for the record.
    tx: the optimizer.
    seed: the seed of dropout and of stochastic pooling; a step's randomness is
      a function of (seed, step).
    mesh: the devices that the step runs on; None: not known.
    shardings: the layout of the state, from `state.shardings`; None: as the
      arguments lie.
    trained: one of `optim.TRAINED`; gradients of nothing else are computed.
    accumulate: the steps of an update, as `optim.build` was told.
    ema_decay: the share that `state.ema` keeps of itself at each update.
    label_smoothing: see `losses.make_targets`.
    mix: the settings by which clips are mixed; None: no mixing.
    gate_after: steps before which the decisions of SRTG's gates do not count.
    regularization_loss: weight of the mean loss of Class Regularisation's
      scores, a part of `loss`.

  Returns:
    The function. `batch` holds `clips` uint8 `(n, t, h, w, c)` and `labels`
    `(n,)`, and perhaps `counters`, numbers `(n,)` by name. The metrics are
    float32 scalars: `loss` in nats, `top1`, `learning_rate`, `gradient_norm`,
    `parameter_norm` (after the update, BN's moving statistics included),
    `gate_open/BLOCK`, the share of clips whose temporal gate is open; the sums
    of the counters; where the loss is scaled, `loss_scale` and `overflow`, 1
    for a step whose gradients are not finite and which therefore changes
    nothing. Of an update of several steps, such a step counts as one without a
    gradient. Where clips are mixed, `top1` is of the label that has the larger
    share.
  """
  whole = shardings and mesh_lib.whole(shardings)

  def train_step(state, batch):
    loss_fn = _make_loss_fn(
      model,
      state,
      batch,
      seed,
      trained,
      label_smoothing,
      mix,
      gate_after,
      regularization_loss,
    )
    params = _place(state.params, whole and whole.params)
    scale, finite, (loss, aux), grads = _differentiate(
      loss_fn, state.loss_scale, params, accumulate
    )
    grads = _place(grads, shardings and shardings.params)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    new_state = state.replace(
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      batch_stats=aux['batch_stats'],
      opt_state=opt_state,
      loss_scale=scale,
    )
    metrics = {
      'loss': loss,
      'learning_rate': schedule(_first_step(state.step, accumulate)),
      'gradient_norm': tree_norm(grads),
      **_clip_metrics(batch, aux),
    }
    if scale is not None:
      new_state = _unless_overflow(finite, new_state, state, accumulate)
      metrics['gradient_norm'] = jnp.where(finite, metrics['gradient_norm'], 0)
      metrics |= {'loss_scale': scale.scale, 'overflow': 1.0 - finite}
    if ema_decay:
      updated = finite if accumulate == 1 else new_state.step % accumulate == 0
      new_state = _average(new_state, ema_decay, updated)
    new_state = _place(new_state, shardings)
    metrics['parameter_norm'] = tree_norm(
      (new_state.params, new_state.batch_stats)
    )
    return new_state, metrics

  return compiler.jit(train_step, mesh, training=True, donate_argnums=0)


def _make_loss_fn(
  model: nn.Module,
  state: TrainState,
  batch: Batch,
  seed: int,
  trained: str,
  label_smoothing: float,
  mix: Mixing | None,
  gate_after: int,
  regularization_loss: float,
) -> Callable[[optax.Params], tuple[Array, dict[str, Any]]]:
  """Returns a batch's mean loss, and more, as a function of the parameters."""
  key = jax.random.fold_in(jax.random.key(seed), state.step)
  rngs = {'dropout': key, 'pooling': jax.random.fold_in(key, 1)}
  clips, labels = preprocessing.prepare(batch['clips'], model), batch['labels']
  others, share = labels, jnp.ones(len(labels)) if label_smoothing else None
  if mix:
    n, _, h, w, _ = clips.shape
    drawn = mix.draw(jax.random.fold_in(key, 2), n, h, w)
    group = model.norm_batch_size or n
    clips, share = mixing.apply(drawn, clips, group)
    others = mixing.others(labels, group)
    larger = jnp.where(share < 0.5, others, labels)
  more = {'gates_decide': state.step >= gate_after} if gate_after else {}

  def mean_loss(logits):
    if share is None:
      return losses.cross_entropy(logits, labels).mean()
    targets = losses.make_targets(
      labels, others, share, logits.shape[-1], label_smoothing
    )
    return losses.soft_cross_entropy(logits, targets).mean()

  def loss_fn(params):
    params = optim.freeze(params, trained)
    (logits, endpoints), updated = model.apply(
      {'params': params, 'batch_stats': state.batch_stats},
      clips,
      train=True,
      mutable=['batch_stats'],
      rngs=rngs,
      **more,
    )
    loss = mean_loss(logits)
    if regularization_loss:
      early = [*map(mean_loss, endpoints['early_scores'].values())]
      loss += regularization_loss * sum(early) / len(early)
    return loss, {
      'logits': logits,
      'endpoints': endpoints,
      'labels': larger if mix else labels,
      'batch_stats': updated.get('batch_stats', {}),
    }

  return loss_fn


def _clip_metrics(batch: Batch, aux: dict[str, Any]) -> Metrics:
  """Returns the metrics of the clips, and sums of the counters."""
  correct = metrics_lib.top_k_correct(aux['logits'], aux['labels'], 1)
  gates, counters = aux['endpoints']['gate_open'], batch.get('counters', {})
  return {
    'top1': correct.mean(dtype=jnp.float32),
    **{f'gate_open/{k}': share for k, share in gates.items()},
    **{name: numbers.sum() for name, numbers in counters.items()},
  }


def _first_step(step: Array, accumulate: int) -> Array:
  """Returns the first of the steps that share an update with this one."""
  return step if accumulate == 1 else step - step % accumulate


def _differentiate(loss_fn, loss_scale, params, accumulate):
  """Returns the next scale, whether all is finite, the loss, the gradients."""
  if loss_scale is not None:
    scale, finite, value, grads = loss_scale.value_and_grad(
      loss_fn, has_aux=True
    )(params)
    if accumulate > 1:
      grads = jax.tree.map(lambda leaf: jnp.where(finite, leaf, 0), grads)
    return scale, finite, value, grads
  value, grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
  return None, True, value, grads


def _unless_overflow(
  finite: Array, new_state: TrainState, state: TrainState, accumulate: int
) -> TrainState:
  """Returns the new state, or where not finite the old one, a step later.

  If the update has several steps, the others may have a gradient: the update is
  then made, and only BN's statistics stay.
  """

  def keep(new, old):
    return jnp.where(finite, new, old)

  def choose(new, old):
    if isinstance(old, optax.ScaleByAdamState):
      return jax.tree.map(keep, new, old)  # it counts its moments' updates
    # Counters still advance: the optimizer's learning rate follows the step.
    counts = jnp.issubdtype(old.dtype, jnp.integer)
    return new if counts else keep(new, old)

  names = ('params', 'batch_stats', 'opt_state')
  kept = {
    name: jax.tree.map(
      choose,
      getattr(new_state, name),
      getattr(state, name),
      is_leaf=lambda node: isinstance(node, optax.ScaleByAdamState),
    )
    for name in (names if accumulate == 1 else ('batch_stats',))
  }
  return new_state.replace(**kept)


def _average(state: TrainState, decay: float, updated: Array) -> TrainState:
  """Updates the moving average of the parameters in a state.

  `optax.incremental_update` would change frozen parameters by rounding.
  """

  def average(old, new):
    return jnp.where(updated, old + (1 - decay) * (new - old), old)

  return state.replace(ema=jax.tree.map(average, state.ema, state.variables))


def _place(tree, shardings):
  """Lays the tree out on the devices by `shardings`; None: as it is."""
  if shardings is None:
    return tree
  return jax.lax.with_sharding_constraint(tree, shardings)


def make_precise_norm(
  model: nn.Module,
  mesh: jax.sharding.Mesh | None = None,
  shardings: TrainState | None = None,
) -> Callable[[TrainState, Iterable[jax.Array]], TrainState]:
  """Returns a function that gives BN the statistics of given clips.

  Moving averages lag behind the parameters, and under multigrid training they
  mix shapes. The precise ones are the mean and variance over all sub-batches of
  clips, each passed as in training with the present parameters, or with their
  moving average if the state has one. Source: Y. Wu and J. Johnson, *Rethinking
  "Batch" in BatchNorm*, 2021.

  Args:
    model: a network from `mtnet_jax.models.build`.
    mesh: the devices that it runs on; None: not known.
    shardings: the layout of the state, from `state.shardings`; None: as it
      lies.

  Returns:
    `(state, iterable of uint8 (n, t, h, w, c)) -> state`; the same state where
    the model's BN is frozen.
  """
  if model.freeze_norm:
    return lambda state, _: state
  whole = shardings and mesh_lib.whole(shardings)

  def raw_moments(variables, clips):
    clips = preprocessing.prepare(clips, model)
    key = jax.random.key(0)
    params = _place(variables['params'], whole and whole.params)
    _, updated = model.apply(
      {'params': params, 'batch_stats': variables['batch_stats']},
      clips,
      train=True,
      mutable=['batch_stats', norm.MOMENTS],
      rngs={'dropout': key, 'pooling': key},
    )
    return norm.raw_moments(updated[norm.MOMENTS])

  measure = compiler.jit(raw_moments, mesh)

  def precise_norm(state, batches):
    count, total = 0, None
    for clips in batches:
      raw = measure(state.evaluated, clips)
      total = raw if total is None else jax.tree.map(jnp.add, total, raw)
      count += 1
    mean = jax.tree.map(lambda leaf: leaf / count, total)
    return state.with_evaluated_stats(norm.to_statistics(mean))

  return precise_norm
