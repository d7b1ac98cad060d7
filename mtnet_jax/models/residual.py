"""The residual block of ResNets, and the places of SRTG in it (Fig. 4.5)."""

from collections.abc import Callable, Sequence
from typing import Any

from flax import linen as nn

from mtnet_jax.errors import UserError
from mtnet_jax.ops.activation import add_and_rectify
from mtnet_jax.ops.max_pool import max_pool
from mtnet_jax.ops.temporal_shift import temporal_shift
from mtnet_jax.typing import Array, Float

SIMPLE_PLACEMENTS = ('start', 'mid', 'res', 'final')
BOTTLENECK_PLACEMENTS = ('start', 'top', 'mid', 'end', 'res', 'final')


def check_placement(placement: Any, bottleneck: bool) -> None:
  """Raises a UserError unless SRTG can be placed there.

  Args:
    placement: a place of SRTG, or None: it stands nowhere.
    bottleneck: whether blocks have three convolutions, not two.
  """
  allowed = BOTTLENECK_PLACEMENTS if bottleneck else SIMPLE_PLACEMENTS
  if placement is not None and placement not in allowed:
    raise UserError(
      f'`placement` (={placement!r}) of SRTG is no place in the '
      f'{"Bottleneck" if bottleneck else "Simple"} blocks of this network. '
      f'Choose one of {", ".join(map(repr, allowed))}.'
    )


class ResidualBlock(nn.Module):
  """Convolutions, their input added to their output, ReLU; perhaps with SRTG.

  Submodules: those of the branch, by their names, `shortcut` where the shape
  changes, `srtg`.

  Attributes:
    branch: names and factories of convolution, BN and activation in order, each
      with the placement that stands after it, if one does.
    shortcut: factory of the residual connection's projection.
    placement: place of SRTG in the block; None: there is no SRTG.
    srtg: factory of the SRTG module.
    pool_pairs: whether the greatest of each two frames is what goes in.
    shifted: whether channels of the branch's input are shifted in time.
  """

  branch: Sequence[tuple[str, Callable[..., nn.Module], str | None]]
  shortcut: Callable[..., nn.Module]
  placement: str | None = None
  srtg: Callable[..., nn.Module] | None = None
  pool_pairs: bool = False
  shifted: bool = False

  @nn.compact
  def __call__(
    self, x: Float[Array, 'n t h w c']
  ) -> tuple[Float[Array, 'n t2 h2 w2 c2'], Float[Array, ''] | None]:
    """Returns the block's output, and the share of open gates or None."""
    shares = []

    def fuse(here, x):
      """Applies SRTG if this is the place for it."""
      if here != self.placement or here is None:
        return x
      x, share = self.srtg(name='srtg')(x)
      shares.append(share)
      return x

    if self.pool_pairs:
      x = max_pool(x, (2, 1, 1), (2, 1, 1))
    x = fuse('start', x)
    y = temporal_shift(x) if self.shifted else x
    for name, convolution, after in self.branch:
      y = fuse(after, convolution(name=name)(y))
    if x.shape != y.shape:
      x = self.shortcut(name='shortcut')(x)
    y = fuse('final', add_and_rectify(y, fuse('res', x)))
    return y, shares[0] if shares else None
