"""Chosen frames of a video file, exactly.

A frame's number is its place in the order of presentation. That order is taken
from the file's own timestamps, not from `number / fps`: variable frame rates,
B-frames and rounded time bases make such arithmetic return wrong frames. Where
a file's timestamps cannot be trusted (AVI), frames are counted from the start.
"""

import array
import bisect
import collections
import contextlib
import itertools
import os
import time
from collections.abc import Callable, Container, Iterator, Sequence
from fractions import Fraction
from typing import TypeVar

import av
import numpy as np
from absl import logging
from av.video.reformatter import VideoReformatter
from jaxtyping import Float, UInt8

from mtnet_jax.data import orientation, picture_sizes
from mtnet_jax.data.packets import Packets

T = TypeVar('T')

# What PyAV raises on files that are broken, or whose metadata is.
_ERRORS = (av.FFmpegError, ValueError, IndexError, OSError)
# Containers name up to so many frames more than can be decoded.
_MAX_MISSING = 2
# Errors of a disk or a network that will be the same the next time.
LASTING = (
  FileNotFoundError,
  IsADirectoryError,
  NotADirectoryError,
  PermissionError,
)
_FIRST_WAIT = 0.1  # seconds
_WAIT_FACTOR = 4


class VideoError(Exception):
  """A video that cannot be read.

  Attributes:
    name: the file's path, or 'video in memory'.
    cause: the fault of the video, in words.
    passing: whether the disk or the network failed, which may work again soon,
      and not the video.
  """

  def __init__(self, name: str, cause: str, passing: bool = False):
    super().__init__(name, cause, passing)
    self.name = name
    self.cause = cause
    self.passing = passing

  def __str__(self) -> str:
    return f'{self.name}: {self.cause}'


def retry(
  read: Callable[[], T],
  attempts: int,
  sleep: Callable[[float], None] = time.sleep,
) -> T:
  """Reads, and tries again where a disk or a network fails.

  Args:
    read: a function that reads; each attempt calls it.
    attempts: calls at most, ≥ 1. Between them are 0.1, 0.4, 1.6 … seconds.
    sleep: waits so many seconds.

  Returns:
    What `read` returns.

  Raises:
    VideoError: the last attempt's, or one that is not `passing`.
  """
  for attempt in range(attempts - 1):
    try:
      return read()
    except VideoError as error:
      if not error.passing:
        raise
      wait = _FIRST_WAIT * _WAIT_FACTOR**attempt
      logging.warning('%s; reading again in %.1f s', error, wait)
      sleep(wait)
  return read()


class VideoReader:
  """Reads frames of a video by number.

  Example:
    >>> with VideoReader('wave.mp4', start=2.0, end=4.5) as video:
    ...   frames = video.read([0, 5, 10])  # uint8 (3, height, width, 3)
  """

  def __init__(
    self,
    source: str | os.PathLike | bytes,
    start: float | None = None,
    end: float | None = None,
  ):
    """Opens a video and lists its frames.

    Args:
      source: a path, or a video file's contents.
      start: seconds from the first frame; earlier frames do not count.
      end: seconds; frames at this time and later do not count.

    Raises:
      VideoError: there is no readable video, or it has no frame in the range.
    """
    in_memory = isinstance(source, bytes)
    self._name = 'video in memory' if in_memory else os.fspath(source)
    self._reformatter = VideoReformatter()
    self._first_frame = None
    with contextlib.ExitStack() as on_error, self._errors_named():
      self._packets = Packets(source if in_memory else self._name)
      on_error.callback(self.close)
      self._packets.scan()
      decoder = self._packets.decoder
      self._size = decoder.width, decoder.height  # by the file's head
      self._list_frames(start, end)
      on_error.pop_all()

  @property
  def name(self) -> str:
    """The file's path, or 'video in memory'."""
    return self._name

  @property
  def num_frames(self) -> int:
    """Frames in the range, as the container counts them.

    The last two may turn out undecodable; they are then read as repetitions of
    the last frame before them.
    """
    return len(self._keys)

  @property
  def fps(self) -> float:
    """The stream's frames per second, the average where the rate varies."""
    return float(self._packets.rate)

  @property
  def times(self) -> Float[np.ndarray, ' n_plus_1']:
    """Seconds from the first frame's time to each frame's, and to the end.

    They are the times that the file gives. The end is where the next frame is
    or would be.
    """
    ticks = np.append(np.asarray(self._keys, np.int64), self._end)
    unit = self._unit
    return (ticks - ticks[0]) * unit.numerator / unit.denominator

  @property
  def time_base(self) -> Fraction:
    """Seconds; the frames' times are multiples of it."""
    return self._unit

  @property
  def rotation(self) -> int:
    """Degrees counterclockwise by which `read` turns frames upright.

    If they are mirrored too, that comes before, from left to right.
    """
    return self._orientation.rotation

  @property
  def width(self) -> int:
    """The width of the upright frame in pixels."""
    frame = self._decode_first()
    return frame.height if self._orientation.transposed else frame.width

  @property
  def height(self) -> int:
    """The height of the upright frame in pixels."""
    frame = self._decode_first()
    return frame.width if self._orientation.transposed else frame.height

  def read(
    self, indices: Sequence[int], short_side: int | None = None
  ) -> UInt8[np.ndarray, 'n h w 3']:
    """Decodes frames.

    Args:
      indices: (n,) numbers in [0, num_frames), ascending, at least one. A
        repeated number is decoded once.
      short_side: pixels. Frames are resized so that the shorter side has this
        length: bilinear, and averaging over what a pixel covers.

    Returns:
      uint8 (n, height, width, 3), RGB, upright. Where frames differ in size,
      they are resized to that of the first one.

    Raises:
      VideoError: a frame cannot be decoded.
      IndexError: a number is outside the video.
    """
    count = self.num_frames
    if not all(0 <= i < count for i in indices):
      raise IndexError(f'Frames {indices} of {self._name}, which has {count}.')
    places = collections.defaultdict(list)
    for place, index in enumerate(indices):
      places[self._keys[index]].append(place)
    frames = None
    with self._errors_named():
      for key, frame in self._decode(sorted(places)):
        other_size = (frame.width, frame.height) != self._size
        if other_size and self._first_frame is None:
          self._decode_first()
          return self.read(indices, short_side)
        # Copied while it is in the processor's cache, and then forgotten: the
        # next one gets its memory.
        image = self._image(frame, short_side)
        if frames is None:
          frames = np.empty((len(indices), *image.shape), np.uint8)
        frames[places[key]] = image
    return frames

  def frames(
    self, short_side: int | None = None
  ) -> Iterator[tuple[Fraction, UInt8[np.ndarray, 'h w 3']]]:
    """Decodes all frames, one after the other.

    Until the last one is there, nothing else can be read.

    Args:
      short_side: the short side, as `read` takes it.

    Yields:
      The frame's time, in seconds from the first one, exactly; and the frame,
      as `read` returns it.

    Raises:
      VideoError: a frame cannot be decoded.
    """
    previous = self._keys[0] - 1
    with self._errors_named():
      self._decode_first()
      for key, frame in self._decode(self._keys):
        if key < previous:
          raise VideoError(self._name, 'its timestamps are out of order')
        previous = key
        yield (key - self._keys[0]) * self._unit, self._image(frame, short_side)

  def close(self):
    """Closes the file."""
    self._packets.close()

  def __enter__(self) -> 'VideoReader':
    return self

  def __exit__(self, *unused):
    self.close()

  @contextlib.contextmanager
  def _errors_named(self) -> Iterator[None]:
    try:
      yield
    except _ERRORS as error:
      cause = getattr(error, 'strerror', None) or str(error)
      passing = isinstance(error, OSError) and not isinstance(error, LASTING)
      raise VideoError(self._name, cause, passing) from error

  def _list_frames(self, start: float | None, end: float | None):
    """Lists the frames' keys, as presented.

    A frame's key is its timestamp, or its number where frames are counted.
    """
    packets = self._packets
    if packets.stamped:
      keys = array.array('q', sorted(packets.stamps))
      unit = packets.time_base
    else:
      keys = range(packets.num_frames)
      # Some AVI files have a packet more than their header counts frames.
      extra = len(keys) - packets.header_frames
      if packets.header_frames and 0 < extra <= _MAX_MISSING:
        keys = keys[:-extra]
      unit = 1 / packets.rate
    if not keys:
      raise VideoError(self._name, 'there is no frame in it')
    self._last_keys = keys[-_MAX_MISSING:]

    def seconds(key: int) -> float:
      # As a fraction first: 5 frames at 25 a second are 0.2 s, to the last bit.
      return float((key - keys[0]) * unit)

    after, before = 0, len(keys)
    if start is not None:
      after = bisect.bisect_left(keys, start, key=seconds)
    if end is not None:
      before = bisect.bisect_left(keys, end, key=seconds)
    if after >= before:
      until = 'the end' if end is None else f'{end} s'
      raise VideoError(
        self._name,
        f'there is no frame from {start or 0} s to {until}; the last one '
        f'is at {seconds(keys[-1]):.2f} s',
      )
    self._keys, self._unit = keys[after:before], unit
    end = packets.end if packets.stamped else len(keys)
    self._end = keys[before] if before < len(keys) else end

  def _decode(
    self, wanted: Sequence[int], jump: bool = True
  ) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yields each wanted key, given in order, with its frame.

    With `jump` (timestamped files), decoding starts at the keyframe before each
    wanted frame, and frames that no other refers to are left out.
    """
    jump = jump and self._packets.stamped
    missing = dict.fromkeys(wanted)
    decoded = frame = None
    for target in wanted:
      if target not in missing:
        continue
      entry = self._packets.entry_before(target) if jump else 0
      if decoded is None or self._packets.is_ahead(entry):
        self._packets.go_to(entry)
        decoded = self._decode_on(missing if jump else None)
      for key, frame in decoded:
        if jump and key > target:
          break
        if key in missing:
          del missing[key]
          yield key, frame
        if target not in missing:
          break
      if target in missing:
        break
    if missing and jump:  # a frame marked as keyframe that is none
      yield from self._decode(list(missing), jump=False)
    elif missing:
      yield from self._repeat_last(list(missing), frame)

  def _decode_on(
    self, needed: Container[int] | None
  ) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yields keys and frames from the next packet on.

    If the keys that are `needed` are given, others may be left out.
    """
    packets = self._packets
    packets.decoder.flush_buffers()
    packets.decoder.skip_frame = 'DEFAULT'
    numbers = itertools.count()
    # At the end, None asks for the frames held back.
    for packet in itertools.chain(iter(packets.next, None), [None]):
      if packet and needed is not None:
        skip = 'DEFAULT' if packet.pts in needed else 'NONREF'
        packets.decoder.skip_frame = skip
      for frame in packets.decode(packet):
        key = frame.pts if packets.stamped else next(numbers)
        if key is not None:
          yield key, frame

  def _repeat_last(
    self, missing: Sequence[int], frame: av.VideoFrame | None
  ) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yields the last frame in place of those that the container miscounted."""
    lost = [key for key in missing if key not in self._last_keys or not frame]
    if lost:
      number = self._keys.index(lost[0])
      raise VideoError(
        self._name, f'frame {number} of {self.num_frames} cannot be decoded'
      )
    for key in missing:
      yield key, frame

  def _decode_first(self) -> av.VideoFrame:
    """Decodes the first frame, which tells the size and the rotation of all."""
    if self._first_frame is None:
      with self._errors_named():
        ((_, first),) = self._decode(self._keys[:1])
      self._first_frame, self._size = first, (first.width, first.height)
    return self._first_frame

  @property
  def _orientation(self) -> orientation.Orientation:
    with self._errors_named():
      return orientation.read(self._decode_first())

  def _image(self, frame: av.VideoFrame, short_side: int | None) -> np.ndarray:
    width, height = picture_sizes.resized(*self._size, short_side)
    # One reformatter for all frames and one thread: else each call sets up
    # both again, at more than the cost of the conversion.
    frame_rgb = self._reformatter.reformat(
      frame, width, height, format='rgb24', threads=1
    )
    return orientation.read(frame).apply(frame_rgb.to_ndarray())
