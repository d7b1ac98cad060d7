"""What training carries from step to step, and how it lies on the devices."""

import functools
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training import dynamic_scale
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mtnet_jax.errors import UserError
from mtnet_jax.typing import Array, Batch, Int

# Splitting smaller arrays would save little and cost a message each.
_MIN_SPLIT = 2**12


@flax.struct.dataclass
class TrainState:
  """Everything that a run needs to go on; the data is a function of the step.

  Attributes:
    step: how many updates have been made.
    params: by module name; float32, or float64 as the network.
    batch_stats: BN's moving means and variances, likewise.
    opt_state: the optimiser's, shaped like the parameters.
    loss_scale: of float16's loss, so that small gradients are not zero; or
      None.
  """

  step: Int[Array, '']
  params: optax.Params
  batch_stats: optax.Params
  opt_state: optax.OptState
  loss_scale: dynamic_scale.DynamicScale | None = None

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
  dtype = getattr(model, 'dtype', jnp.float32)
  if dtype == jnp.float64:
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables['params'],
    batch_stats=variables.get('batch_stats', {}),
    opt_state=tx.init(variables['params']),
    loss_scale=_loss_scale() if dtype == jnp.float16 else None,
  )


def _loss_scale() -> dynamic_scale.DynamicScale:
  # Typed as they come out of a step: else the second would be compiled anew.
  return dynamic_scale.DynamicScale(
    fin_steps=jnp.zeros((), jnp.int32), scale=jnp.full((), 2.0**16, jnp.float32)
  )


def make_mesh(
  data: int = 0, fsdp: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Devices in a grid of `data` × `fsdp`; batches are split over all of them.

  Args:
    data: groups of devices, each with all of the parameters; 0: as many as
      there are.
    fsdp: devices in a group, each with a share of the parameters and of the
      optimiser's state.
    devices: None: all, of all processes.

  Raises:
    UserError: there are not `data` × `fsdp` devices.
  """
  devices = list(jax.devices() if devices is None else devices)
  count = len(devices)
  groups = data or count // max(fsdp, 1)
  if data < 0 or fsdp < 1 or groups * fsdp != count:
    allowed = ', '.join(str(n) for n in range(1, count + 1) if count % n == 0)
    raise UserError(
      f'mesh.data (={data}) times mesh.fsdp (={fsdp}) must be the number of '
      f'devices (={count}). Set mesh.data=0 to let it follow, and mesh.fsdp to '
      f'one of {allowed}.'
    )
  return jax.make_mesh(
    (groups, fsdp),
    ('data', 'fsdp'),
    axis_types=(AxisType.Auto,) * 2,
    devices=devices,
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, P())


def split_batch(mesh: Mesh) -> NamedSharding:
  """The first axis is split over all devices: the clips."""
  return NamedSharding(mesh, P(('data', 'fsdp')))


def shardings(abstract: TrainState, mesh: Mesh) -> TrainState:
  """How each array of a state lies on the devices.

  Large arrays are split along their longest axis that the devices of a group
  divide evenly; the others, and BN's statistics, are whole on every device.

  Args:
    abstract: the state, or abstract arrays in its place.
    mesh: from `make_mesh`.

  Returns:
    Shardings in the places of the arrays.
  """
  count = mesh.shape['fsdp']

  def place(leaf):
    axes = [i for i, size in enumerate(leaf.shape) if size % count == 0]
    if count == 1 or leaf.size < _MIN_SPLIT or not axes:
      return replicated(mesh)
    axis = max(axes, key=lambda i: leaf.shape[i])
    return NamedSharding(mesh, P(*[None] * axis, 'fsdp'))

  placed = jax.tree.map(place, abstract)
  whole_stats = jax.tree.map(lambda _: replicated(mesh), abstract.batch_stats)
  return placed.replace(batch_stats=whole_stats)


def whole(shardings: TrainState) -> TrainState:
  """The shardings of a state that every device has all of."""
  return jax.tree.map(lambda s: replicated(s.mesh), shardings)


def to_devices(batch: Batch, mesh: Mesh) -> dict[str, jax.Array]:
  """Puts a process's part of a batch on its devices, split over all.

  On a CPU, waits until it is there: see `memory.keep`.
  """
  arrays = jax.tree.map(
    functools.partial(
      jax.make_array_from_process_local_data, split_batch(mesh)
    ),
    dict(batch),
  )
  if jax.default_backend() == 'cpu':
    jax.block_until_ready(arrays)
  return arrays


def to_own_devices(variables: optax.Params, mesh: Mesh) -> optax.Params:
  """A copy of all of the variables on the devices of `mesh`, this process's.

  Args:
    variables: on the devices of all processes, which all must call this.
    mesh: of devices of this process.
  """
  leaves = jax.tree.leaves(variables)
  if leaves and jax.process_count() > 1:
    variables = _gather_to(leaves[0].sharding.mesh)(variables)
    variables = jax.tree.map(lambda leaf: leaf.addressable_data(0), variables)
  return jax.device_put(variables, replicated(mesh))


@functools.lru_cache(maxsize=1)  # compiled once for all validations
def _gather_to(mesh: Mesh):
  return jax.jit(lambda variables: variables, out_shardings=replicated(mesh))


def check_divisible(batch_size: int, mesh: Mesh, key: str) -> None:
  """Raises a UserError unless every device gets the same number of clips.

  Args:
    batch_size: clips over all devices.
    mesh: the devices.
    key: the configuration's key that holds the batch size, for the message.
  """
  devices = mesh.size
  if batch_size % devices:
    raise UserError(
      f'{key} (={batch_size}) must be divisible by the number of devices '
      f'(={devices}): for instance {max(1, batch_size // devices) * devices}.'
    )
