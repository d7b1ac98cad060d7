"""Cuts the views of a video that a model judges, whoever holds the frames."""

from collections.abc import Sequence
from typing import Protocol

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import Float, Int, UInt8

from mtnet_jax.data import picture_sizes, transforms
from mtnet_jax.data.video import VideoError
from mtnet_jax.errors import UserError

# An array does not tell its frame rate; most videos of the data sets have this.
ARRAY_FPS = 25.0


class Frames(Protocol):
  """A video's frames by number: `VideoReader` and whatever stands in for it."""

  @property
  def num_frames(self) -> int:
    """Frames in the video."""

  @property
  def times(self) -> Float[np.ndarray, ' n_plus_1']:
    """Seconds from the first frame's time to each frame's, and to the end."""

  def read(
    self, indices: Sequence[int], short_side: int | None = None
  ) -> UInt8[np.ndarray, 'n h w 3']:
    """Returns the frames of these numbers, resized to that shorter side."""


def read(
  video: Frames,
  indices: Int[np.ndarray, 'i t'],
  *,
  num_crops: int,
  crop_size: int,
  input_size: int,
) -> UInt8[np.ndarray, 'v t s s 3']:
  """Reads clips and cuts crops out of them; each frame is decoded once.

  Source: the thesis, Sections 4.4.1 and 5.4.1.

  Args:
    video: the frames.
    indices: the indices of the frames of i clips, from `clips.view_indices`.
    num_crops: crops of each clip, j ≥ 1, spread along the long side; a single
      one is the middle.
    crop_size: pixels: the frames' short side is resized to this, and crops are
      squares of it.
    input_size: pixels: crops are resized to this, s.

  Returns:
    uint8 (i·j, t, s, s, 3), RGB; view `i·num_crops + j` is crop j of clip i.

  Raises:
    VideoError: a frame cannot be read.
  """
  wanted = np.unique(indices)
  frames = video.read(wanted, crop_size)
  crops = np.stack(
    [
      transforms.resize_square(crop, input_size)
      for crop in transforms.crops_along_long_side(frames, num_crops)
    ],
    axis=1,
  )  # u j s s c, u the frames that are in any view
  views = crops[np.searchsorted(wanted, indices)]  # i t j s s c
  return views.swapaxes(1, 2).reshape(-1, indices.shape[1], *crops.shape[2:])


class ArrayReader:
  """Reads frames of an array, as `video.VideoReader` does those of a file.

  Frames that were decoded from a file and are resized here differ a little from
  those that `VideoReader` resizes: it does so before it turns the file's
  brightness and its coarser colors into RGB. Of 255 that is 1 on average, and
  up to 40 at borders of strong colors.
  """

  def __init__(
    self,
    frames: np.ndarray,
    name: str = 'array',
    fps: float = ARRAY_FPS,
  ):
    """Takes the frames; nothing is copied.

    Args:
      frames: uint8 (t, h, w, 3), RGB, 0 to 255, at the video's own rate. May
        lie in a file (`numpy.memmap`).
      name: the video's name, for messages.
      fps: frames per second.

    Raises:
      UserError: another dtype or shape.
    """
    shape = frames.shape
    if frames.dtype != np.uint8 or len(shape) != 4 or shape[-1] != 3:
      raise UserError(
        f'{name} is {frames.dtype} {shape}; allowed is uint8 '
        '(frames, height, width, 3), RGB from 0 to 255. Bring it into this '
        'form: frames in [0, 1], for instance, by (255 * frames).round()'
        ".astype('uint8')."
      )
    if 0 in shape:
      raise UserError(f'{name} is empty, of shape {shape}: give some frames.')
    self.name, self.fps = name, fps
    self._frames = frames
    self._reformatter = VideoReformatter()

  @property
  def num_frames(self) -> int:
    """Frames in the video."""
    return len(self._frames)

  @property
  def times(self) -> Float[np.ndarray, ' n_plus_1']:
    """Seconds from the first frame's time to each frame's, and to the end."""
    return np.arange(self.num_frames + 1) / self.fps

  def read(
    self, indices: Sequence[int], short_side: int | None = None
  ) -> UInt8[np.ndarray, 'n h w 3']:
    """Copies frames.

    Args:
      indices: (n,) numbers in [0, num_frames).
      short_side: pixels. Frames are resized so that the shorter side has this
        length, by the filter that `VideoReader` uses.

    Returns:
      uint8 (n, height, width, 3), RGB.

    Raises:
      VideoError: a frame cannot be resized.
      IndexError: a number is outside the video.
    """
    count = self.num_frames
    if not all(0 <= i < count for i in indices):
      raise IndexError(f'Frames {indices} of {self.name}, which has {count}.')
    try:
      return np.stack(
        [self._image(self._frames[i], short_side) for i in indices]
      )
    except (av.FFmpegError, ValueError, MemoryError) as error:
      cause = getattr(error, 'strerror', None) or str(error) or repr(error)
      raise VideoError(self.name, cause) from error

  def close(self) -> None:
    """Does nothing: no file is open."""

  def __enter__(self) -> 'ArrayReader':
    return self

  def __exit__(self, *unused) -> None:
    self.close()

  def _image(self, frame: np.ndarray, short_side: int | None) -> np.ndarray:
    height, width = frame.shape[:2]
    if short_side in (None, min(height, width)):
      return frame
    size = picture_sizes.resized(width, height, short_side)
    picture = av.VideoFrame.from_ndarray(
      np.ascontiguousarray(frame), format='rgb24'
    )
    return self._reformatter.reformat(picture, *size, threads=1).to_ndarray()
