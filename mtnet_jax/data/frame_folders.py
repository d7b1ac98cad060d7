"""Reads frames of a video that is a folder of numbered images."""

import bisect
import os
import pathlib
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import Float, UInt8

from mtnet_jax.data import folders, numbered_images, opening, pictures
from mtnet_jax.data.video import LASTING, VideoError
from mtnet_jax.errors import UserError, printable

# Frames per second of images whose rate is not given: that of arrays of frames,
# and of most videos of the data sets. Only times depend on it.
FRAMES_PER_SECOND = 25.0
# Frames per second; lower and higher ones are mistakes of the unit.
_RATES = 0.01, 1000


def is_rate(value: object) -> bool:
  """Returns whether a value can be a number of frames per second."""
  lowest, highest = _RATES
  number = isinstance(value, int | float) and not isinstance(value, bool)
  return number and lowest <= value <= highest


def check_rate(value: object, where: str) -> None:
  """Raises a UserError where a value is no number of frames per second.

  Args:
    value: the value.
    where: the place that the value comes from, in words.
  """
  if not is_rate(value):
    raise UserError(
      f'{where} (={value!r}) must be frames per second, a number from '
      f'{_RATES[0]} to {_RATES[1]:,}.'
    )


def size_and_time(path: str | os.PathLike) -> tuple[int, int]:
  """Returns the bytes of a folder's files, and the last time of change.

  Args:
    path: the folder.

  Raises:
    OSError: it cannot be read.
  """
  size, changed = 0, os.stat(path).st_mtime_ns
  with os.scandir(path) as entries:
    for entry in entries:
      if numbered_images.parse(entry.name):
        status = os.stat(entry.path)
        size += status.st_size
        changed = max(changed, status.st_mtime_ns)
  return size, changed


class FrameFolderReader:
  """Reads frames of a folder of images, as `video.VideoReader` does of a file.

  Only the images that are asked for are opened.

  Attributes:
    name: the folder's path.
    time_base: seconds from a frame to the next.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
  ):
    """Lists the frames.

    Args:
      path: the folder.
      start: seconds from the first image; earlier ones do not count.
      end: seconds; images at this time and later do not count.
      fps: images per second; None: `FRAMES_PER_SECOND`.

    Raises:
      VideoError: the images are not those of one video, or none of them is in
        the range.
    """
    self.name = os.fspath(path)
    rate = Fraction(FRAMES_PER_SECOND if fps is None else fps)
    self.time_base = 1 / rate.limit_denominator(100_000)
    self._size = None
    try:
      names = numbered_images.order(_list(path))
    except (OSError, ValueError) as error:
      raise self._error(error) from error
    if len(names) > opening.MAX_FRAMES:
      raise VideoError(
        self.name,
        f'it has {len(names):,} images, and a video has at most '
        f'{opening.MAX_FRAMES:,} frames',
      )
    self._names = self._between(names, start, end)

  @property
  def num_frames(self) -> int:
    """The number of frames in the range."""
    return len(self._names)

  @property
  def fps(self) -> float:
    """Frames per second."""
    return float(1 / self.time_base)

  @property
  def times(self) -> Float[np.ndarray, ' n_plus_1']:
    """Seconds from the first frame to each frame, and to the end."""
    numbers = np.arange(self.num_frames + 1)
    return numbers * self.time_base.numerator / self.time_base.denominator

  @property
  def width(self) -> int:
    """The width of the first frame in pixels."""
    return self._first_size()[0]

  @property
  def height(self) -> int:
    """The height of the first frame in pixels."""
    return self._first_size()[1]

  def read(
    self, indices: Sequence[int], short_side: int | None = None
  ) -> UInt8[np.ndarray, 'n h w 3']:
    """Decodes frames.

    Args:
      indices: (n,) numbers in [0, num_frames), at least one. A repeated number
        is decoded once.
      short_side: pixels. Frames are resized so that the shorter side has this
        length: bilinear, and averaging over what a pixel covers.

    Returns:
      uint8 (n, height, width, 3), RGB.

    Raises:
      VideoError: a frame cannot be decoded, or is of another size than others.
      IndexError: a number is outside the video.
    """
    count = self.num_frames
    if not all(0 <= i < count for i in indices):
      raise IndexError(f'Frames {indices} of {self.name}, which has {count}.')
    images = {}
    for index in sorted({*map(int, indices)}):
      images[index] = self._image(index, short_side)
    return np.stack([images[int(index)] for index in indices])

  def frames(
    self, short_side: int | None = None
  ) -> Iterator[tuple[Fraction, UInt8[np.ndarray, 'h w 3']]]:
    """Decodes all frames, one after the other.

    Args:
      short_side: the short side, as `read` takes it.

    Yields:
      The frame's time, in seconds from the first one, exactly; and the frame,
      as `read` returns it.

    Raises:
      VideoError: a frame cannot be decoded, or is of another size than others.
    """
    for index in range(self.num_frames):
      yield index * self.time_base, self._image(index, short_side)

  def close(self) -> None:
    """Does nothing: no file is open."""

  def __enter__(self) -> 'FrameFolderReader':
    return self

  def __exit__(self, *unused) -> None:
    self.close()

  def _between(
    self, names: list[str], start: float | None, end: float | None
  ) -> list[str]:
    """Returns the names of the images in a range of times."""

    def seconds(number: int) -> float:
      return float(number * self.time_base)

    after, before, numbers = 0, len(names), range(len(names))
    if start is not None:
      after = bisect.bisect_left(numbers, start, key=seconds)
    if end is not None:
      before = bisect.bisect_left(numbers, end, key=seconds)
    if after >= before:
      until = 'the end' if end is None else f'{end} s'
      raise VideoError(
        self.name,
        f'there is no frame from {start or 0} s to {until}; the last one is at '
        f'{seconds(len(names) - 1):.2f} s, of {self.fps:g} a second',
      )
    return names[after:before]

  def _first_size(self) -> tuple[int, int]:
    if self._size is None:
      self._image(0, None)
    return self._size

  def _image(self, index: int, short_side: int | None) -> np.ndarray:
    name = self._names[index]
    path = os.path.join(self.name, name)
    try:
      opening.check_regular(path)
      image = pictures.decode(pathlib.Path(path).read_bytes())
      size = image.shape[1], image.shape[0]
      self._size = self._size or size
      if size != self._size:
        raise ValueError(
          f'it has {size[0]} × {size[1]} pixels, and others have '
          f'{self._size[0]} × {self._size[1]}'
        )
      return pictures.resize(image, short_side)
    except (OSError, ValueError) as error:
      raise self._error(
        error, f'its image {printable(name)} cannot be used: '
      ) from error

  def _error(self, error: Exception, what: str = '') -> VideoError:
    cause = getattr(error, 'strerror', None) or str(error)
    passing = isinstance(error, OSError) and not isinstance(error, LASTING)
    return VideoError(self.name, what + cause, passing)


def _list(path: str | os.PathLike) -> list[str]:
  """Returns the names of a folder's files that may be frames.

  Raises:
    ValueError: there are videos among them.
    OSError: the folder cannot be read.
  """
  with os.scandir(path) as entries:
    names = [entry.name for entry in entries if not folders.is_folder(entry)]
  names = [name for name in names if not folders.why_not_data(name)]
  videos = sorted(filter(folders.is_video_name, names))
  if videos:
    raise ValueError(
      f'it is a directory that holds videos, such as {printable(videos[0])}: '
      'name them, or a folder of images alone'
    )
  return names
