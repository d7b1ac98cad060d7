"""Changes of a training clip's light, sharpness and geometry.

Every change is drawn once and is the same in all frames of a clip, so that
motion is not altered. A share of the clips is changed at all, and each method
is applied to those with its own probability (thesis, 4.4.1 and 5.4.1).
"""

import cv2
import numpy as np

from mtnet_jax.data.transforms import Clip

# Sizes are relative to the clip's: a slight blur of 224 pixels hides everything
# at 48.
_BLUR = 0.006  # largest standard deviation, as a share of the height
_MEAN = 0.02  # largest window, as a share of the height
_SHIFT = 15  # of a color channel, of 255 (4.4.1)
_BRIGHTNESS = 32  # of 255
_CONTRAST = 0.3
_DEGREES = 10
_CORNERS = 0.06  # how far a corner moves, as a share of the side


def augment(
  clip: Clip, share: float, method_share: float, rng: np.random.Generator
) -> Clip:
  """Changes a clip, perhaps, by some of `METHODS`, in their order.

  Args:
    clip: uint8 (t, h, w, 3).
    share: the share of the clips that are changed, in [0, 1].
    method_share: the share of those clips that each method changes, in [0, 1].
    rng: the source of randomness.

  Returns:
    uint8 (t, h, w, 3).
  """
  if rng.random() >= share:
    return clip
  for method in METHODS:
    if rng.random() < method_share:
      clip = method(clip, rng)
  return clip


def gaussian_blur(clip: Clip, rng: np.random.Generator) -> Clip:
  """Blurs by a Gaussian of 0.4 pixels to 0.6 % of the height, or 0.7 pixels."""
  sigma = rng.uniform(0.4, max(0.7, _BLUR * clip.shape[1]))
  return _each(clip, lambda frame: cv2.GaussianBlur(frame, (0, 0), sigma))


def mean_blur(clip: Clip, rng: np.random.Generator) -> Clip:
  """Takes the mean over squares of 2 pixels to 2 % of the height, or 3."""
  largest = max(3, round(_MEAN * clip.shape[1]))
  size = int(rng.integers(2, largest, endpoint=True))
  return _each(clip, lambda frame: cv2.blur(frame, (size, size)))


def shift_colors(clip: Clip, rng: np.random.Generator) -> Clip:
  """Adds to each color channel a number of its own, ±1 to ±15 of 255."""
  shift = rng.integers(1, _SHIFT, 3, endpoint=True) * rng.choice([-1, 1], 3)
  return _map_values(clip, lambda values: values + shift)


def change_brightness(clip: Clip, rng: np.random.Generator) -> Clip:
  """Adds a number to all values, up to 32 of 255."""
  shift = rng.uniform(-_BRIGHTNESS, _BRIGHTNESS)
  return _map_values(clip, lambda values: values + shift)


def change_contrast(clip: Clip, rng: np.random.Generator) -> Clip:
  """Scales the distance from the clip's mean by 0.7 to 1.3."""
  mean, factor = clip.mean(), rng.uniform(1 - _CONTRAST, 1 + _CONTRAST)
  return _map_values(clip, lambda values: mean + factor * (values - mean))


def rotate(clip: Clip, rng: np.random.Generator) -> Clip:
  """Turns the picture by up to 10 degrees about its middle."""
  _, h, w, _ = clip.shape
  middle = (w - 1) / 2, (h - 1) / 2
  matrix = cv2.getRotationMatrix2D(middle, rng.uniform(-_DEGREES, _DEGREES), 1)
  return _each(
    clip,
    lambda frame: cv2.warpAffine(
      frame, matrix, (w, h), borderMode=cv2.BORDER_REFLECT_101
    ),
  )


def move_corners(clip: Clip, rng: np.random.Generator) -> Clip:
  """Sees the picture in another perspective: each corner moves a little."""
  _, h, w, _ = clip.shape
  corners = np.float32([[0, 0], [w, 0], [w, h], [0, h]])
  moved = corners + rng.uniform(-_CORNERS, _CORNERS, (4, 2)) * [w, h]
  matrix = cv2.getPerspectiveTransform(corners, np.float32(moved))
  return _each(
    clip,
    lambda frame: cv2.warpPerspective(
      frame, matrix, (w, h), borderMode=cv2.BORDER_REFLECT_101
    ),
  )


METHODS = (
  gaussian_blur,
  mean_blur,
  shift_colors,
  change_brightness,
  change_contrast,
  rotate,
  move_corners,
)


def _each(clip, change):
  return np.stack([change(frame) for frame in np.ascontiguousarray(clip)])


def _map_values(clip, change):
  """Changes values by a table of the 256 of each channel."""
  values = np.arange(256)[:, None].repeat(3, axis=1)  # v c
  table = np.clip(np.rint(change(values)), 0, 255).astype(np.uint8)
  return _each(clip, lambda frame: cv2.LUT(frame, table.reshape(1, 256, 3)))
