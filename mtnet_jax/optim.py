"""The thesis's optimiser and learning rates (its sections 4.4.1 and 5.4.1)."""

import jax
import ml_collections
import optax

from mtnet_jax.errors import UserError

SCHEDULES = ('cosine', 'step')


def learning_rate(
  optim: ml_collections.ConfigDict,
  *,
  batch_size: int,
  steps_per_epoch: float,
  num_steps: int,
) -> optax.Schedule:
  """The learning rate as a function of the step, counted from 0.

  The peak is `learning_rate * batch_size / reference_batch`: a step on twice
  the clips may be twice as long. It is reached linearly from zero over
  `warmup_steps`; then half a cosine falls to zero at `num_steps`, or 'step'
  multiplies by `decay` at each epoch of `milestones`.

  Args:
    optim: the configuration's `optim`.
    batch_size: clips a step over all devices.
    steps_per_epoch: not necessarily whole.
    num_steps: of the whole run.

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
      f'(={num_steps}): shorten the warm-up or train longer.'
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
  return optax.join_schedules(
    [optax.linear_schedule(0.0, peak, warmup), main], [warmup]
  )


def sgd(
  optim: ml_collections.ConfigDict, schedule: optax.Schedule
) -> optax.GradientTransformation:
  """SGD with momentum; the decay is added to the gradient, as in the thesis.

  Weight decay is for kernels alone: BN's scales and biases and every other
  bias are left out, since shrinking them does not regularise.
  """
  return optax.chain(
    optax.add_decayed_weights(optim.weight_decay, mask=_is_kernel),
    optax.sgd(schedule, momentum=optim.momentum),
  )


def _is_kernel(params: optax.Params) -> optax.Params:
  return jax.tree_util.tree_map_with_path(
    lambda path, _: path[-1].key.startswith('kernel'), params
  )
