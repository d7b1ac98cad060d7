"""Chosen frames of a video file, exactly.

A frame's number is its place in the order of presentation. That order is taken
from the file's own timestamps, not from `number / fps`: variable frame rates,
B-frames and rounded time bases make such arithmetic return wrong frames. Where
a file's timestamps cannot be trusted (AVI), frames are counted from the start.
"""

import bisect
import contextlib
import io
import itertools
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

# What PyAV raises on files that are broken, or whose metadata is.
_ERRORS = (av.FFmpegError, ValueError, IndexError, OSError)
# Containers name up to so many frames more than can be decoded.
_MAX_MISSING = 2
_DEFAULT_RATE = Fraction(25)  # of a stream that names none


class VideoError(Exception):
  """A video that cannot be read.

  Attributes:
    name: the file's path, or 'video in memory'.
    cause: what is wrong with it.
  """

  def __init__(self, name: str, cause: str):
    super().__init__(name, cause)
    self.name = name
    self.cause = cause

  def __str__(self) -> str:
    return f'{self.name}: {self.cause}'


class VideoReader:
  """Reads frames of a video by number.

  While the reader is open the compressed video is held in memory; of its
  decoded frames, only those that are read.

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
      self._container = av.open(
        io.BytesIO(source) if in_memory else self._name,
        # A stray byte in a title is no reason to refuse a video.
        metadata_errors='replace',
      )
      on_error.callback(self.close)
      self._stream = self._video_stream()
      self._list_frames(start, end)
      on_error.pop_all()

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
    return float(self._rate)

  @property
  def rotation(self) -> int:
    """Degrees counterclockwise by which `read` turns frames upright."""
    return _rotation(self._decode_first())

  @property
  def width(self) -> int:
    """Pixels, of the upright frame."""
    frame = self._decode_first()
    return frame.height if _rotation(frame) % 180 else frame.width

  @property
  def height(self) -> int:
    """Pixels, of the upright frame."""
    frame = self._decode_first()
    return frame.width if _rotation(frame) % 180 else frame.height

  def read(
    self, indices: Sequence[int], short_side: int | None = None
  ) -> UInt8[np.ndarray, 'n h w 3']:
    """Decodes frames.

    Args:
      indices: (n,) numbers in [0, num_frames), ascending. A repeated number is
        decoded once.
      short_side: pixels. Frames are resized so that the shorter side has this
        length: bilinear, and averaging over what a pixel covers.

    Returns:
      uint8 (n, height, width, 3), RGB, upright.

    Raises:
      VideoError: a frame cannot be decoded.
      IndexError: a number is outside the video.
    """
    count = self.num_frames
    if not all(0 <= i < count for i in indices):
      raise IndexError(f'Frames {indices} of {self._name}, which has {count}.')
    wanted = sorted({self._keys[i] for i in indices})
    with self._errors_named():
      images = {
        key: self._image(frame, short_side)
        for key, frame in self._decode(wanted)
      }
      return np.stack([images[self._keys[i]] for i in indices])

  def close(self):
    """Closes the file."""
    self._container.close()

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
      raise VideoError(self._name, cause) from error

  def _video_stream(self) -> av.VideoStream:
    for stream in self._container.streams.video:
      if not stream.disposition & Disposition.attached_pic:  # a cover picture
        # One thread: the loader's processes already use every core.
        stream.thread_type = 'NONE'
        # Now, with nothing left out: AV1's decoder keeps the `skip_frame` that
        # it was opened with.
        stream.codec_context.open(strict=False)
        return stream
    raise VideoError(self._name, 'there is no video stream in it')

  def _list_frames(self, start: float | None, end: float | None):
    """Lists the packets (as decoded) and the frames' keys (as presented).

    A frame's key is its timestamp, or its number where frames are counted.
    """
    stream = self._stream
    self._rate = stream.average_rate or stream.guessed_rate or _DEFAULT_RATE
    self._packets = [p for p in self._container.demux(stream) if p.size]
    stamps = [p.pts for p in self._packets if not p.is_discard]
    self._counted = (
      self._container.format.name == 'avi'  # B-frames: stamped out of order
      or None in stamps
      or len(set(stamps)) < len(stamps)
    )
    keys = list(range(len(stamps))) if self._counted else sorted(stamps)
    if not keys:
      raise VideoError(self._name, 'there is no frame in it')
    self._last_keys = keys[-_MAX_MISSING:]
    self._keyframes = [
      (packet.pts, position)
      for position, packet in enumerate(self._packets)
      if packet.is_keyframe and not self._counted
    ]
    if start is not None or end is not None:
      seconds = self._seconds(keys)
      after = bisect.bisect_left(seconds, 0.0 if start is None else start)
      before = len(keys) if end is None else bisect.bisect_left(seconds, end)
      keys = keys[after:before]
      if not keys:
        until = 'the end' if end is None else f'{end} s'
        raise VideoError(
          self._name,
          f'there is no frame from {start or 0} s to {until}; the last one '
          f'is at {seconds[-1]:.2f} s',
        )
    self._keys = keys

  def _seconds(self, keys: list[int]) -> list[float]:
    # As fractions first: 5 frames at 25 a second are 0.2 s, to the last bit.
    unit = 1 / self._rate if self._counted else self._stream.time_base
    return [float((key - keys[0]) * unit) for key in keys]

  def _decode(
    self, wanted: Sequence[int], jump: bool = True
  ) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yields each wanted key, given in order, with its frame.

    With `jump` (timestamped files), decoding starts at the keyframe before each
    wanted frame, and frames that no other refers to are left out.
    """
    jump = jump and not self._counted
    context = self._stream.codec_context
    context.flush_buffers()
    context.skip_frame = 'DEFAULT'
    numbers = itertools.count()
    missing = dict.fromkeys(wanted)
    position = 0
    frame = None
    for target in wanted:
      keyframe = self._keyframe_position(target) if jump else 0
      if keyframe > position:
        context.flush_buffers()
        position = keyframe
      while target in missing and position <= len(self._packets):
        packet = None  # at the end: asks for the frames held back
        if position < len(self._packets):
          packet = self._packets[position]
          if jump:
            needed = packet.pts in missing
            context.skip_frame = 'DEFAULT' if needed else 'NONREF'
        position += 1
        for frame in context.decode(packet):
          key = next(numbers) if self._counted else frame.pts
          if key in missing:
            del missing[key]
            yield key, frame
    if missing and jump:  # a frame marked as keyframe that is none
      yield from self._decode(list(missing), jump=False)
    elif missing:
      yield from self._repeat_last(list(missing), frame)

  def _keyframe_position(self, key: int) -> int:
    """Returns the last packet from which decoding reaches a timestamp."""
    number = bisect.bisect_right(self._keyframes, (key, len(self._packets)))
    return self._keyframes[number - 1][1] if number else 0

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
    """Decodes the first frame: containers do not tell a video's rotation."""
    if self._first_frame is None:
      with self._errors_named():
        ((_, self._first_frame),) = self._decode(self._keys[:1])
    return self._first_frame

  def _image(self, frame: av.VideoFrame, short_side: int | None) -> np.ndarray:
    width, height = frame.width, frame.height
    if short_side is not None:
      scale = short_side / min(width, height)
      width, height = round(scale * width), round(scale * height)
    # One reformatter for all frames and one thread: else each call sets up
    # both again, at more than the cost of the conversion.
    frame_rgb = self._reformatter.reformat(
      frame, width, height, format='rgb24', threads=1
    )
    return np.rot90(frame_rgb.to_ndarray(), _rotation(frame) // 90)


def _rotation(frame: av.VideoFrame) -> int:
  return round(frame.rotation / 90) * 90 % 360
