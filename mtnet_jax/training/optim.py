"""Optimizers and learning rates; the thesis uses SGD (4.4.1 and 5.4.1)."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from mtnet_jax.errors import UserError

SCHEDULES = ('cosine', 'step')
OPTIMIZERS = ('sgd', 'adamw')
# The layer of every network whose outputs are the classes.
CLASSIFIER = 'classifier'
# Parts of a network that can be trained. All but the first are prefixes of the
# names of its modules.
TRAINED = ('all', CLASSIFIER, 'class_regularization')


def learning_rate(
  optim: ml_collections.ConfigDict,
  *,
  batch_size: int,
  steps_per_epoch: float,
  num_steps: int,
  factors: Sequence[float] = (1.0,),
) -> optax.Schedule:
  """Returns the learning rate as a function of the step, counted from 0.

  The peak is `learning_rate * batch_size / reference_batch`: twice the clips
  allow twice the learning rate. It is reached linearly from zero over
  `warmup_steps`; then half a cosine falls to zero at `num_steps`, or 'step'
  multiplies by `decay` at each epoch of `milestones`. All of it is multiplied
  by the factor of the step: multigrid training raises the learning rate where
  it takes more clips per step.

  Args:
    optim: the configuration's `optim`.
    batch_size: clips of an update, over all devices and accumulated steps.
    steps_per_epoch: not necessarily whole.
    num_steps: the steps of the whole run.
    factors: the factors of the learning rate of each step, from the first step
      on, repeated without end.

  Returns:
    An optax schedule.

  Raises:
    UserError: unknown schedule, a warm-up longer than the run, or a value that
      is not allowed.
  """
  if optim.reference_batch < 1:
    raise UserError(
      f'optim.reference_batch (={optim.reference_batch}) must be at least 1: '
      'the clips a step for which optim.learning_rate holds.'
    )
  if not all(isinstance(epoch, int | float) for epoch in optim.milestones):
    raise UserError(
      f'optim.milestones (={optim.milestones}) must be epochs, for instance '
      '(40, 70, 120).'
    )
  peak = optim.learning_rate * batch_size / optim.reference_batch
  warmup = optim.warmup_steps
  if warmup >= num_steps:
    raise UserError(
      f'optim.warmup_steps (={warmup}) must be less than the steps of the run '
      f'(={num_steps}): shorten the warm-up or train longer. `mtnet finetune` '
      'adapts both to the number of videos.'
    )
  if optim.schedule == 'cosine':
    # optax counts from the end of the warm-up.
    main = optax.cosine_decay_schedule(peak, num_steps - warmup)
  elif optim.schedule == 'step':
    main = optax.piecewise_constant_schedule(
      peak,
      {
        round(epoch * steps_per_epoch) - warmup: optim.decay
        for epoch in optim.milestones
      },
    )
  else:
    raise UserError(
      f'optim.schedule (={optim.schedule!r}) must be one of '
      f'{", ".join(SCHEDULES)}.'
    )
  base = optax.join_schedules(
    [optax.linear_schedule(0.0, peak, warmup), main], [warmup]
  )
  if len(factors) == 1:
    return lambda step: factors[0] * base(step)
  table = np.asarray(factors, np.float32)
  return lambda step: jnp.asarray(table)[step % len(table)] * base(step)


def mean_factors(factors: Sequence[float], steps: int) -> list[float]:
  """Returns the means of `factors` over the steps of each update.

  Args:
    factors: the factors that `learning_rate` takes.
    steps: steps of an update, which sees the clips of all of them.
  """
  count = len(factors)
  return [
    sum(factors[(first + k) % count] for k in range(steps)) / steps
    for first in range(count)
  ]


def build(
  optim: ml_collections.ConfigDict,
  schedule: optax.Schedule,
  accumulate: int = 1,
) -> optax.GradientTransformation:
  """Returns the optimizer of a run, `optim.name`, with clipping and decay.

  The gradient is clipped to `clip_norm`, then the optimizer turns it into an
  update. Weight decay is for kernels alone: BN's scales and biases and every
  other bias are left out, since shrinking them does not regularize. Everything
  but the classifier learns at `backbone_rate` times the rate. Parameters that
  `trained` leaves out stay as they are, without decay too.

  Args:
    optim: the configuration's `optim`.
    schedule: the learning rate as a function of the step, counted from 0.
    accumulate: steps whose gradients' mean makes one update. The learning rate
      of an update is that of the first of its steps.

  Raises:
    UserError: the optimizer or `trained` is unknown, or a number is not
      allowed.
  """
  _check(optim)
  if accumulate < 1:
    raise UserError(
      f'train.accumulate (={accumulate}) must be at least 1: the steps of an '
      'update.'
    )
  if accumulate == 1:
    return _of_each_step(optim, schedule)
  tx = _of_each_step(optim, lambda update: schedule(update * accumulate))
  # float32, where float64 is not enabled.
  accumulated = optax.MultiSteps(tx, accumulate, accumulator_dtype=jnp.float64)
  return accumulated.gradient_transformation()


def _check(optim: ml_collections.ConfigDict) -> None:
  rate, trained = optim.backbone_rate, optim.trained
  if rate <= 0:
    raise UserError(
      f'optim.backbone_rate (={rate}) must be above 0: 1 for one learning '
      "rate. To train the classifier alone, set optim.trained='classifier'."
    )
  if trained not in TRAINED:
    raise UserError(
      f'optim.trained (={trained!r}) must be one of {", ".join(TRAINED)}.'
    )
  if optim.name not in OPTIMIZERS:
    raise UserError(
      f'optim.name (={optim.name!r}) must be one of {", ".join(OPTIMIZERS)}.'
    )
  if not 0 <= optim.clip_norm < math.inf:
    raise UserError(
      f'optim.clip_norm (={optim.clip_norm}) must be at least 0: the largest '
      'norm of the gradient, or 0 for any.'
    )
  for key in ('momentum', 'second_momentum'):
    if not 0 <= optim[key] < 1:
      raise UserError(f'optim.{key} (={optim[key]}) must lie in [0, 1).')
  if not 0 <= optim.weight_decay < math.inf:
    raise UserError(
      f'optim.weight_decay (={optim.weight_decay}) must be at least 0.'
    )


def _of_each_step(
  optim: ml_collections.ConfigDict, schedule: optax.Schedule
) -> optax.GradientTransformation:
  trained = optim.trained
  make = {'sgd': _sgd, 'adamw': _adamw}[optim.name]
  chain = make(optim, schedule)
  if optim.backbone_rate != 1:
    backbone = _mask(lambda module: module != CLASSIFIER)
    chain.append(optax.masked(optax.scale(optim.backbone_rate), backbone))
  if trained != 'all':
    frozen = _mask(lambda module: not is_trained(module, trained))
    chain.append(optax.masked(optax.set_to_zero(), frozen))
  return optax.chain(*chain)


def _sgd(
  optim: ml_collections.ConfigDict, schedule: optax.Schedule
) -> list[optax.GradientTransformation]:
  """SGD with momentum; the decay is added to the gradient, as in the thesis."""
  decay = optax.add_decayed_weights(optim.weight_decay, mask=_is_kernel)
  if optim.clip_norm:
    # One link of the chain, so that checkpoints are the same with and without.
    decay = optax.chain(optax.clip_by_global_norm(optim.clip_norm), decay)
  return [decay, optax.sgd(schedule, momentum=optim.momentum)]


def _adamw(
  optim: ml_collections.ConfigDict, schedule: optax.Schedule
) -> list[optax.GradientTransformation]:
  """AdamW, whose decay is apart from the gradient; no moments of the frozen."""
  clip = optax.identity()
  if optim.clip_norm:
    clip = optax.clip_by_global_norm(optim.clip_norm)
  adamw = optax.adamw(
    schedule,
    b1=optim.momentum,
    b2=optim.second_momentum,
    weight_decay=optim.weight_decay,
    mask=_is_kernel,
  )
  trained = _mask(lambda module: is_trained(module, optim.trained))
  return [
    clip,
    adamw if optim.trained == 'all' else optax.masked(adamw, trained),
  ]


def is_trained(module: str, trained: str) -> bool:
  """Returns whether a module is in the part of the network that is trained.

  Args:
    module: the name of one of the network's own modules.
    trained: one of `TRAINED`.
  """
  return trained == 'all' or module.startswith(trained)


def freeze(params: optax.Params, trained: str) -> optax.Params:
  """Returns the parameters, without gradients of those that are not trained.

  Args:
    params: a network's parameters.
    trained: one of `TRAINED`.
  """
  return {
    name: below if is_trained(name, trained) else jax.lax.stop_gradient(below)
    for name, below in params.items()
  }


def _mask(
  wanted: Callable[[str], bool],
) -> Callable[[optax.Params], optax.Params]:
  """Returns a function from parameters to a mask of the wanted modules."""
  return lambda params: jax.tree_util.tree_map_with_path(
    lambda path, _: wanted(path[0].key), params
  )


def _is_kernel(params: optax.Params) -> optax.Params:
  return jax.tree_util.tree_map_with_path(
    lambda path, _: path[-1].key.startswith('kernel'), params
  )
