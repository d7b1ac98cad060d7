"""The thesis's optimiser and learning rates (its sections 4.4.1 and 5.4.1)."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from mtnet_jax.errors import UserError

SCHEDULES = ('cosine', 'step')
# The layer of every network whose outputs are the classes.
CLASSIFIER = 'classifier'
# Parts of a network that can be trained; but for the first they are what the
# names of its modules begin with.
TRAINED = ('all', CLASSIFIER, 'class_regularization')


def learning_rate(
  optim: ml_collections.ConfigDict,
  *,
  batch_size: int,
  steps_per_epoch: float,
  num_steps: int,
  factors: Sequence[float] = (1.0,),
) -> optax.Schedule:
  """The learning rate as a function of the step, counted from 0.

  The peak is `learning_rate * batch_size / reference_batch`: a step on twice
  the clips may be twice as long. It is reached linearly from zero over
  `warmup_steps`; then half a cosine falls to zero at `num_steps`, or 'step'
  multiplies by `decay` at each epoch of `milestones`. All of it is multiplied
  by the factor of the step: where multigrid training takes more clips a step,
  the step may be longer.

  Args:
    optim: the configuration's `optim`.
    batch_size: clips a step over all devices.
    steps_per_epoch: not necessarily whole.
    num_steps: the steps of the whole run.
    factors: what each step's learning rate is multiplied by, from the first
      step on, repeated without end.

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
  base = optax.join_schedules(
    [optax.linear_schedule(0.0, peak, warmup), main], [warmup]
  )
  if len(factors) == 1:
    return lambda step: factors[0] * base(step)
  table = np.asarray(factors, np.float32)
  return lambda step: jnp.asarray(table)[step % len(table)] * base(step)


def sgd(
  optim: ml_collections.ConfigDict, schedule: optax.Schedule
) -> optax.GradientTransformation:
  """SGD with momentum; the decay is added to the gradient, as in the thesis.

  Weight decay is for kernels alone: BN's scales and biases and every other
  bias are left out, since shrinking them does not regularise. Everything but
  the classifier learns at `backbone_rate` times the rate. What `trained` leaves
  out stays as it is: it does not decay either.

  Raises:
    UserError: `backbone_rate` is not above zero, or `trained` is unknown.
  """
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
  chain = [
    optax.add_decayed_weights(optim.weight_decay, mask=_is_kernel),
    optax.sgd(schedule, momentum=optim.momentum),
  ]
  if rate != 1:
    backbone = _mask(lambda module: module != CLASSIFIER)
    chain.append(optax.masked(optax.scale(rate), backbone))
  if trained != 'all':
    frozen = _mask(lambda module: not is_trained(module, trained))
    chain.append(optax.masked(optax.set_to_zero(), frozen))
  return optax.chain(*chain)


def is_trained(module: str, trained: str) -> bool:
  """Whether a module is in the part of the network that is trained.

  Args:
    module: the name of one of the network's own modules.
    trained: one of `TRAINED`.
  """
  return trained == 'all' or module.startswith(trained)


def freeze(params: optax.Params, trained: str) -> optax.Params:
  """The parameters, of which only the trained ones get gradients.

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
  """A function from parameters to where their module's name is wanted."""
  return lambda params: jax.tree_util.tree_map_with_path(
    lambda path, _: wanted(path[0].key), params
  )


def _is_kernel(params: optax.Params) -> optax.Params:
  return jax.tree_util.tree_map_with_path(
    lambda path, _: path[-1].key.startswith('kernel'), params
  )
