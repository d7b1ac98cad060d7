"""What training carries from step to step, and how it lies on the devices."""

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mtnet_jax.errors import UserError
from mtnet_jax.typing import Array, Batch, Int


@flax.struct.dataclass
class TrainState:
  """Everything that a run needs to go on; the data is a function of the step.

  Attributes:
    step: how many updates have been made.
    params: the float32 parameters, by module name.
    batch_stats: BN's moving means and variances, float32.
    opt_state: the optimiser's, shaped like the parameters.
  """

  step: Int[Array, '']
  params: optax.Params
  batch_stats: optax.Params
  opt_state: optax.OptState

  @property
  def variables(self) -> dict[str, optax.Params]:
    """What `model.apply` takes."""
    return {'params': self.params, 'batch_stats': self.batch_stats}


def create(
  model: nn.Module,
  tx: optax.GradientTransformation,
  clip_shape: tuple[int, int, int, int],
  seed: int,
) -> TrainState:
  """Initialises a state; a pure function of its arguments.

  Args:
    model: from `mtnet_jax.models.build`.
    tx: the optimiser.
    clip_shape: `(t, h, w, c)` of the clips to come.
    seed: of the random initial values.

  Returns:
    The state at step 0.
  """
  clips = jnp.zeros((1, *clip_shape))
  variables = model.init(jax.random.key(seed), clips, train=False)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables['params'],
    batch_stats=variables.get('batch_stats', {}),
    opt_state=tx.init(variables['params']),
  )


def make_mesh() -> Mesh:
  """All devices along one axis, `data`, over which batches are split.

  Raises:
    UserError: there are several processes, each of which would read the same
      clips.
  """
  if jax.process_count() > 1:
    raise UserError(
      f'This is one of {jax.process_count()} processes. A run is one process '
      'with all the devices of one machine: start a single one.'
    )
  return jax.make_mesh(
    (jax.device_count(),), ('data',), axis_types=(AxisType.Auto,)
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array: the parameters."""
  return NamedSharding(mesh, P())


def split_batch(mesh: Mesh) -> NamedSharding:
  """The first axis is split over the devices: the clips."""
  return NamedSharding(mesh, P('data'))


def to_devices(batch: Batch, mesh: Mesh) -> dict[str, jax.Array]:
  """Puts a process's part of a batch on its devices, split over `data`."""
  sharding = split_batch(mesh)
  return {
    name: jax.make_array_from_process_local_data(sharding, array)
    for name, array in batch.items()
  }


def check_divisible(batch_size: int, mesh: Mesh, key: str) -> None:
  """Raises a UserError unless every device gets the same number of clips.

  Args:
    batch_size: clips over all devices.
    mesh: the devices.
    key: the configuration's key that holds the batch size, for the message.
  """
  devices = mesh.shape['data']
  if batch_size % devices:
    raise UserError(
      f'{key} (={batch_size}) must be divisible by the number of devices '
      f'(={devices}): for instance {max(1, batch_size // devices) * devices}.'
    )
