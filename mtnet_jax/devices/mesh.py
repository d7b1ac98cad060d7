"""How do arrays lie on the devices?"""

import functools
from collections.abc import Mapping, Sequence

import jax
import optax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mtnet_jax.errors import UserError
from mtnet_jax.typing import PyTree


def platform() -> str:
  """Returns the platform of this process's devices: 'cpu', 'gpu' or 'tpu'."""
  return jax.default_backend()


def make_mesh(
  data: int = 0, fsdp: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Makes a grid of `data` × `fsdp` devices, over which batches are split.

  Args:
    data: groups of devices, each with all of the parameters; 0: as many as
      there are.
    fsdp: devices in a group, each with a share of the parameters and of the
      optimizer's state.
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
  """Returns the sharding of an array that every device holds whole."""
  return NamedSharding(mesh, P())


def split_batch(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of a batch: its clips are split over all devices."""
  return NamedSharding(mesh, P(('data', 'fsdp')))


def whole(shardings: PyTree) -> PyTree:
  """Returns the shardings of the same arrays, whole on every device."""
  return jax.tree.map(lambda s: replicated(s.mesh), shardings)


def to_devices(batch: Mapping[str, PyTree], mesh: Mesh) -> dict[str, PyTree]:
  """Puts a process's part of a batch on its devices, split over all.

  On a CPU, waits until it is there: see `host_memory`.
  """
  arrays = jax.tree.map(
    functools.partial(
      jax.make_array_from_process_local_data, split_batch(mesh)
    ),
    dict(batch),
  )
  if platform() == 'cpu':
    jax.block_until_ready(arrays)
  return arrays


def to_own_devices(variables: optax.Params, mesh: Mesh) -> optax.Params:
  """Returns a copy of all variables on this process's devices, `mesh`.

  Args:
    variables: variables on the devices of all processes. All processes must
      call this.
    mesh: a mesh of devices of this process.
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
