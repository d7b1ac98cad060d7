"""MixUp and CutMix: clips of a batch are mixed and show two actions at once.

Clips are mixed on the device, each with a neighbor of its own group: clips of a
group share BN's statistics and lie on one device, so no clip is sent. Loaders
and validation are not concerned.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from mtnet_jax.errors import UserError
from mtnet_jax.typing import Array, Float


@dataclasses.dataclass(frozen=True)
class Mixing:
  """How often clips are mixed, and how much of a clip remains.

  Attributes:
    mixup_share: the share of the clips that MixUp changes, in [0, 1]: each
      pixel becomes `s · own + (1 - s) · other`, with one s a clip.
    cutmix_share: the share of the clips that CutMix changes, in [0, 1]: a box,
      the same in all frames, shows the other clip. The two shares are at most 1
      together.
    mixup_alpha: s is drawn from the beta distribution of (alpha, alpha).
    cutmix_alpha: the same as `mixup_alpha`, for the share outside the box;
      where the box reaches beyond the picture, the share that is left counts.

  Sources: H. Zhang et al., *mixup: Beyond Empirical Risk Minimization*, 2018;
  S. Yun et al., *CutMix*, 2019.
  """

  mixup_share: float
  cutmix_share: float
  mixup_alpha: float
  cutmix_alpha: float

  @property
  def share(self) -> float:
    """The share of the clips that are changed at all."""
    return self.mixup_share + self.cutmix_share

  def draw(
    self, key: jax.Array, n: int, h: int, w: int
  ) -> dict[str, Float[Array, '...']]:
    """Draws for each clip of a batch how it is mixed.

    Args:
      key: the source of randomness.
      n: the number of clips.
      h: the height of a frame in pixels.
      w: the width of a frame in pixels.

    Returns:
      By name, float32 `(n,)`: `level`, what is left of the own clip outside the
      box; `top`, `bottom`, `left` and `right`, the box's borders in pixels, of
      which the first of each pair is in the box and the second is not; an empty
      box is all zeros.
    """
    kind, *draws = jax.random.uniform(key, (5, n), jnp.float32)
    mixed = kind < self.mixup_share
    cut = ~mixed & (kind < self.mixup_share + self.cutmix_share)
    level = _beta(draws[0], self.mixup_alpha)
    side = jnp.sqrt(1 - _beta(draws[1], self.cutmix_alpha))
    borders = {}
    for drawn, size, names in (
      (draws[2], h, ('top', 'bottom')),
      (draws[3], w, ('left', 'right')),
    ):
      middle = jnp.floor(drawn * size)
      length = jnp.floor(side * size)
      first = middle - jnp.floor(length / 2)
      for name, border in zip(names, (first, first + length), strict=True):
        borders[name] = jnp.where(cut, jnp.clip(border, 0, size), 0.0)
    return {'level': jnp.where(mixed, level, 1.0), **borders}


def _beta(uniform: Float[Array, ' n'], alpha: float) -> Float[Array, ' n']:
  """Returns beta-distributed numbers (alpha, alpha) from uniform ones."""
  # A table of quantiles is used, because `jax.random.beta` is a loop, which
  # takes seconds to compile in each program and which all devices must leave at
  # the same time.
  grid = np.linspace(0, 1, 4097, dtype=np.float32)
  quantiles = scipy.special.betaincinv(alpha, alpha, grid)
  return jnp.interp(uniform, grid, np.float32(quantiles))


def check(mixing: Mixing, group: int) -> None:
  """Raises a UserError unless clips can be mixed with these settings.

  Args:
    mixing: the settings to check.
    group: clips among which each finds its other one.

  Raises:
    UserError: a value is not allowed, or a clip finds no other one.
  """
  for key in ('mixup_share', 'cutmix_share'):
    share = getattr(mixing, key)
    if not 0 <= share <= 1:
      raise UserError(f'data.{key} (={share}) must lie in [0, 1].')
  for key in ('mixup_alpha', 'cutmix_alpha'):
    alpha = getattr(mixing, key)
    if not 0 < alpha < math.inf:
      raise UserError(f'data.{key} (={alpha}) must be above 0.')
  if mixing.share > 1 + 1e-6:  # beyond what rounding makes of 0.7 + 0.3
    raise UserError(
      f'data.mixup_share (={mixing.mixup_share}) and data.cutmix_share '
      f'(={mixing.cutmix_share}) must be at most 1 together: a clip is mixed '
      'by one of them.'
    )
  if mixing.share and group == 1:
    raise UserError(
      'data.mixup_share and data.cutmix_share mix clips that share BN '
      'statistics, and here each has its own: give a larger train.batch_size '
      'or train.norm_batch_size, or set both shares to 0.'
    )


def apply(
  drawn: dict[str, Float[Array, ' n']],
  clips: Float[Array, 'n t h w c'],
  group: int,
) -> tuple[Float[Array, 'n t h w c'], Float[Array, ' n']]:
  """Mixes each clip with the next of its group, the last with the first.

  Args:
    drawn: a draw of `Mixing.draw`.
    clips: the batch, normalized or not; n is a multiple of `group`.
    group: clips among which each finds its other one.

  Returns:
    The mixed clips, and the share of each that is its own.
  """
  _, _, h, w, _ = clips.shape
  column = {name: numbers[:, None] for name, numbers in drawn.items()}
  y, x = jnp.arange(h)[None], jnp.arange(w)[None]
  rows = (column['top'] <= y) & (y < column['bottom'])  # n h
  columns = (column['left'] <= x) & (x < column['right'])  # n w
  box = rows[:, :, None] & columns[:, None, :]  # n h w
  own = jnp.where(box, 0.0, column['level'][:, :, None])  # n h w
  height = drawn['bottom'] - drawn['top']
  width = drawn['right'] - drawn['left']
  share = drawn['level'] * (1 - height * width / (h * w))
  own = own[:, None, :, :, None]  # n 1 h w 1
  mixed = own * clips + (1 - own) * others(clips, group)
  return mixed.astype(clips.dtype), share


def others(values: Array, group: int) -> Array:
  """Returns what each value is mixed with: the next in its group on axis 0."""
  grouped = values.reshape(-1, group, *values.shape[1:])
  return jnp.roll(grouped, -1, axis=1).reshape(values.shape)
