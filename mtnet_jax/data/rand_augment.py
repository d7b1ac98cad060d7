"""RandAugment on a clip: a few changes drawn from many, all of one strength.

Every change is the same in all frames of a clip. Changes that depend on the
picture's values use all frames together. Source: E. D. Cubuk et al.,
*RandAugment*, 2020; the sizes are those of torchvision's.
"""

import functools
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from mtnet_jax.data.transforms import Clip

# At a strength of 1.
_ENHANCE = 0.9  # how far brightness and others are from 1, either way
_POSTERIZE = 4  # of 8 bits that are taken off
_SHEAR = 0.3  # pixels a pixel
_SHIFT = 150 / 331  # of the width or the height
_DEGREES = 30


def rand_augment(
  clip: Clip, count: int, strength: float, rng: np.random.Generator
) -> Clip:
  """Changes a clip by some of `METHODS`, one after the other.

  Args:
    clip: uint8 (t, h, w, 3).
    count: changes, each drawn from all of them; 0 changes nothing.
    strength: the strength in [0, 1] of all changes that have one. Where a
      change has two directions, one is drawn.
    rng: the source of randomness.

  Returns:
    uint8 (t, h, w, 3).
  """
  methods = list(METHODS.values())
  for _ in range(count):
    method = methods[rng.integers(len(methods))]
    clip = method(clip, strength * rng.choice([-1, 1]))
  return clip


def _as_one_picture(
  clip: Clip, change: Callable[[Image.Image], Image.Image]
) -> Clip:
  """Changes all frames as one picture, in which they stand in a column."""
  t, h, w, c = clip.shape
  column = Image.fromarray(np.ascontiguousarray(clip).reshape(t * h, w, c))
  return np.asarray(change(column)).reshape(clip.shape)


def _enhance(enhancer, clip: Clip, amount: float) -> Clip:
  return _as_one_picture(
    clip, lambda column: enhancer(column).enhance(1 + _ENHANCE * amount)
  )


def _sharpen(clip: Clip, amount: float) -> Clip:
  # Each frame is changed by itself, since the change reads neighboring pixels.
  frames = [
    _enhance(ImageEnhance.Sharpness, frame[None], amount) for frame in clip
  ]
  return np.concatenate(frames)


def _posterize(clip: Clip, amount: float) -> Clip:
  bits = 8 - round(_POSTERIZE * abs(amount))
  return _as_one_picture(clip, lambda column: ImageOps.posterize(column, bits))


def _solarize(clip: Clip, amount: float) -> Clip:
  first = 255 * (1 - abs(amount))
  return _as_one_picture(clip, lambda column: ImageOps.solarize(column, first))


def _auto_contrast(clip: Clip, _: float) -> Clip:
  return _as_one_picture(clip, ImageOps.autocontrast)


def _equalize(clip: Clip, _: float) -> Clip:
  return _as_one_picture(clip, ImageOps.equalize)


def _identity(clip: Clip, _: float) -> Clip:
  return clip


def _warp(clip: Clip, matrix: list[list[float]]) -> Clip:
  """Moves each pixel of the frames about their middle."""
  _, h, w, _ = clip.shape
  middle = np.array([(w - 1) / 2, (h - 1) / 2])
  linear, shift = np.array(matrix)[:, :2], np.array(matrix)[:, 2]
  shift = shift + middle - linear @ middle
  matrix = np.concatenate([linear, shift[:, None]], axis=1)
  return np.stack(
    [
      cv2.warpAffine(frame, matrix, (w, h), borderMode=cv2.BORDER_REFLECT_101)
      for frame in np.ascontiguousarray(clip)
    ]
  )


def _rotate(clip: Clip, amount: float) -> Clip:
  angle = np.deg2rad(_DEGREES * amount)
  cos, sin = np.cos(angle), np.sin(angle)
  return _warp(clip, [[cos, sin, 0], [-sin, cos, 0]])


def _shear_x(clip: Clip, amount: float) -> Clip:
  return _warp(clip, [[1, _SHEAR * amount, 0], [0, 1, 0]])


def _shear_y(clip: Clip, amount: float) -> Clip:
  return _warp(clip, [[1, 0, 0], [_SHEAR * amount, 1, 0]])


def _shift_x(clip: Clip, amount: float) -> Clip:
  pixels = round(_SHIFT * amount * clip.shape[2])
  return _warp(clip, [[1, 0, pixels], [0, 1, 0]])


def _shift_y(clip: Clip, amount: float) -> Clip:
  pixels = round(_SHIFT * amount * clip.shape[1])
  return _warp(clip, [[1, 0, 0], [0, 1, pixels]])


# (uint8 t h w 3, the strength with a sign) -> the same shape
METHODS: dict[str, Callable[[Clip, float], Clip]] = {
  'identity': _identity,
  'auto_contrast': _auto_contrast,
  'equalize': _equalize,
  'posterize': _posterize,
  'solarize': _solarize,
  'brightness': functools.partial(_enhance, ImageEnhance.Brightness),
  'color': functools.partial(_enhance, ImageEnhance.Color),
  'contrast': functools.partial(_enhance, ImageEnhance.Contrast),
  'sharpness': _sharpen,
  'rotate': _rotate,
  'shear_x': _shear_x,
  'shear_y': _shear_y,
  'shift_x': _shift_x,
  'shift_y': _shift_y,
}
