"""Chooses where a clip is cut out of its frames, and at what size.

Every function takes a clip, does the same to all of its frames, and returns
another. Randomness comes from the `rng` argument only.
"""

import re

import cv2
import numpy as np
from jaxtyping import UInt8

Clip = UInt8[np.ndarray, 't _h _w c']


def resize(clip: Clip, height: int, width: int) -> Clip:
  """Resizes each frame.

  Bilinear; where a side shrinks to less than half, the mean over the area that
  a pixel covers, since bilinear interpolation would skip pixels there.

  Args:
    clip: uint8 (t, h, w, c).
    height: the new height in pixels.
    width: the new width in pixels.

  Returns:
    uint8 (t, height, width, c); the clip itself where the size is right.
  """
  t, h, w, c = clip.shape
  if (h, w) == (height, width):
    return clip
  shrinks = 2 * height < h or 2 * width < w
  interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
  resized = np.empty((t, height, width, c), np.uint8)
  for source, target in zip(clip, resized, strict=True):
    cv2.resize(source, (width, height), target, interpolation=interpolation)
  return resized


def resize_square(clip: Clip, size: int) -> Clip:
  """Resizes each frame to `size` × `size` pixels."""
  return resize(clip, size, size)


def random_crop(clip: Clip, size: int, rng: np.random.Generator) -> Clip:
  """Cuts a square out of a uniformly drawn place, the same in all frames.

  Args:
    clip: uint8 (t, h, w, c) with h, w ≥ size.
    size: the side of the crop in pixels.
    rng: the source of randomness.

  Returns:
    uint8 (t, size, size, c), which does not keep the rest in memory.
  """
  _, h, w, _ = clip.shape
  assert min(h, w) >= size, (clip.shape, size)
  top = rng.integers(h - size, endpoint=True)
  left = rng.integers(w - size, endpoint=True)
  crop = clip[:, top : top + size, left : left + size]
  return np.ascontiguousarray(crop)


def crops_along_long_side(
  clip: Clip, num_crops: int
) -> UInt8[np.ndarray, 'n t s s c']:
  """Cuts squares of the short side's length, spread along the long side.

  Three crops are the left (top), the middle and the right (bottom) one; a
  single crop is the middle one.

  Args:
    clip: uint8 (t, h, w, c).
    num_crops: crops, ≥ 1.

  Returns:
    uint8 (num_crops, t, s, s, c), s = min(h, w).
  """
  _, h, w, _ = clip.shape
  size = min(h, w)
  slack = max(h, w) - size
  if num_crops == 1:
    offsets = [slack // 2]
  else:
    offsets = [round(i * slack / (num_crops - 1)) for i in range(num_crops)]
  if w > h:
    crops = [clip[:, :, left : left + size] for left in offsets]
  else:
    crops = [clip[:, top : top + size] for top in offsets]
  return np.stack(crops)


def mirror(clip: Clip) -> Clip:
  """Swaps left and right: uint8 (t, h, w, c) → the same shape, a copy."""
  mirrored = np.empty(clip.shape, np.uint8)
  # NumPy would copy pixel by pixel, at five times the cost.
  for source, target in zip(clip, mirrored, strict=True):
    cv2.flip(source, 1, target)
  return mirrored


def names_a_side(class_name: str) -> bool:
  """Returns whether a class's name has the word left or right in it.

  In the mirror such a class may be another one, so that its clips must not be
  mirrored.

  Example:
    >>> [names_a_side(name) for name in ('turn_left', 'TurnRight', 'bright')]
    [True, True, False]
  """
  words = re.findall(r'[A-Z]?[a-z]+|[A-Z]+', class_name)
  return not {'left', 'right'}.isdisjoint(word.lower() for word in words)
