"""The state of a training, and its layout on the devices."""

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training import dynamic_scale
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mtnet_jax.devices.mesh import replicated
from mtnet_jax.typing import PyTree

# Splitting smaller arrays would save little memory and cost a message each.
_MIN_SPLIT = 2**12


@flax.struct.dataclass
class TrainState:
  """Everything that a run needs to resume; the data follow from the step.

  Attributes:
    step: the number of updates so far: an int32 array (), or a stand-in for it
      in a tree of shapes or shardings.
    params: the parameters by module name; float32, or float64 if the network's
      are.
    batch_stats: BN's moving means and variances, likewise.
    opt_state: the optimizer's, shaped like the parameters.
    loss_scale: the scale of float16's loss, so that small gradients are not
      zero; or None.
    ema: `params` and `batch_stats`, of which it is the exponential moving
      average over the updates; or None.
  """

  step: PyTree
  params: optax.Params
  batch_stats: optax.Params
  opt_state: optax.OptState
  loss_scale: dynamic_scale.DynamicScale | None = None
  ema: dict[str, optax.Params] | None = None

  @property
  def variables(self) -> dict[str, optax.Params]:
    """The variables that `model.apply` takes."""
    return {'params': self.params, 'batch_stats': self.batch_stats}

  @property
  def evaluated(self) -> dict[str, optax.Params]:
    """The weights that stand for the run: `ema`, or without it `variables`."""
    return self.variables if self.ema is None else self.ema

  def with_evaluated_stats(self, batch_stats: optax.Params) -> 'TrainState':
    """Returns the state with other BN statistics among `evaluated`."""
    if self.ema is None:
      return self.replace(batch_stats=batch_stats)
    return self.replace(ema=self.ema | {'batch_stats': batch_stats})


def create(
  model: nn.Module,
  tx: optax.GradientTransformation,
  clip_shape: tuple[int, int, int, int],
  seed: int,
  average: bool = False,
) -> TrainState:
  """Initializes a state; a pure function of its arguments.

  Args:
    model: a network from `mtnet_jax.models.build`.
    tx: the optimizer.
    clip_shape: `(t, h, w, c)` of the clips to come.
    seed: the seed of the random initial values.
    average: whether the state has an `ema`, which starts as the weights.

  Returns:
    The state at step 0.
  """
  clips = jnp.zeros((1, *clip_shape))
  variables = model.init(jax.random.key(seed), clips, train=False)
  dtype = getattr(model, 'dtype', jnp.float32)
  if dtype == jnp.float64:
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables['params'],
    batch_stats=variables.get('batch_stats', {}),
    opt_state=tx.init(variables['params']),
    loss_scale=_loss_scale() if dtype == jnp.float16 else None,
  )
  return start_average(state) if average else state


def start_average(state: TrainState) -> TrainState:
  """Returns the state with an `ema` that is a copy of its weights."""
  # A step donates each array once.
  return state.replace(ema=jax.tree.map(jnp.copy, state.variables))


def _loss_scale() -> dynamic_scale.DynamicScale:
  # The types are those of a step's results, or the second step would be
  # recompiled.
  return dynamic_scale.DynamicScale(
    fin_steps=jnp.zeros((), jnp.int32), scale=jnp.full((), 2.0**16, jnp.float32)
  )


def shardings(abstract: TrainState, mesh: Mesh) -> TrainState:
  """Returns how each array of a state lies on the devices.

  Large arrays are split along their longest axis that the devices of a group
  divide evenly; the others, and BN's statistics, are whole on every device.

  Args:
    abstract: the state, or abstract arrays in its place.
    mesh: a mesh from `make_mesh`.

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
  if placed.ema is not None:
    ema = placed.ema | {'batch_stats': whole_stats}
    placed = placed.replace(ema=ema)
  return placed.replace(batch_stats=whole_stats)
