"""Re-encodes videos, small and quick to read at any frame."""

import io
from fractions import Fraction

import av
import numpy as np

from mtnet_jax.data.frame_folders import FrameFolderReader
from mtnet_jax.data.video import VideoError, VideoReader

_KEYFRAME_EVERY = 30  # frames: what is decoded at most before a wanted one
# A quality of 18 can hardly be told from the original. The bytes are the same
# on every call and every machine: there is one thread (callers have one process
# per core), and no algorithm that depends on the processor, with which one call
# in some hundreds differed.
_OPTIONS = {'crf': '18', 'threads': '1', 'x264-params': 'cpu-independent=1'}


def encode(video: VideoReader | FrameFolderReader, short_side: int) -> bytes:
  """Encodes all frames of a video, one after the other.

  Args:
    video: the frames, upright. They keep their numbers and their times.
    short_side: pixels of the shorter side, even. A smaller video stays as large
      as it is, but for a last row or column where their number is odd. 0: every
      video does.

  Returns:
    An MP4 file with H.264 and without sound; a keyframe at least every 30
    frames.

  Raises:
    VideoError: a frame cannot be decoded, or not be encoded.
  """
  side = min(video.width, video.height)
  if short_side:
    side = min(side, short_side)
  if side < 2:
    raise VideoError(video.name, 'it is too small to be encoded')
  file = io.BytesIO()
  try:
    with av.open(file, 'w', format='mp4') as container:
      stream = None
      for seconds, image in video.frames(side):
        # Colors are stored for every second pixel, so sizes are even.
        height, width = (length // 2 * 2 for length in image.shape[:2])
        stream = stream or _add_stream(container, video, height, width)
        image = np.ascontiguousarray(image[:height, :width])
        frame = av.VideoFrame.from_ndarray(image, format='rgb24')
        frame.time_base = video.time_base
        frame.pts = int(seconds / video.time_base)
        container.mux(stream.encode(frame))
      container.mux(stream.encode())
  except (av.FFmpegError, ValueError) as error:
    raise VideoError(video.name, f'cannot be encoded: {error}') from error
  return file.getvalue()


def _add_stream(
  container: av.container.OutputContainer,
  video: VideoReader | FrameFolderReader,
  height: int,
  width: int,
) -> av.VideoStream:
  rate = Fraction(video.fps).limit_denominator(100_000)
  stream = container.add_stream('libx264', rate, options=_OPTIONS)
  stream.height, stream.width = height, width
  stream.pix_fmt = 'yuv420p'
  stream.gop_size = _KEYFRAME_EVERY
  stream.codec_context.time_base = video.time_base
  return stream
