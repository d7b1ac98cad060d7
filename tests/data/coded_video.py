"""Small videos whose frames tell their own numbers."""

import pathlib
import struct
from fractions import Fraction

import av
import numpy as np

_BITS = 8


def frames(num_frames: int, height: int = 48, width: int = 64) -> np.ndarray:
  """uint8 (t, h, w, 3): frame number i stands in 8 upright bars, as bits."""
  bits = np.arange(num_frames)[:, None] >> np.arange(_BITS) & 1
  bars = np.repeat(bits * 200 + 25, width // _BITS, axis=1)
  shape = (num_frames, height, width, 3)
  return np.broadcast_to(bars[:, None, :, None], shape).astype(np.uint8)


def numbers(clip: np.ndarray) -> list[int]:
  """The frame numbers that stand in uint8 (t, h, w, 3)."""
  _, h, w, _ = clip.shape
  centers = (2 * np.arange(_BITS) + 1) * w // (2 * _BITS)
  bits = clip[:, h // 2, centers].mean(axis=-1) > 125
  return (bits << np.arange(_BITS)).sum(axis=1).tolist()


def write(
  path,
  images: np.ndarray,
  codec: str = 'libx264',
  fps: int | Fraction = 25,
  options: dict[str, str] | None = None,
  stamps: list[int] | None = None,
  rotation: int = 0,
  pix_fmt: str = 'yuv420p',
  muxer: dict[str, str] | None = None,
) -> str:
  """Encodes uint8 (t, h, w, 3) in groups of 12; returns the path.

  Args:
    path: the file; its suffix is the container.
    images: the frames.
    codec: FFmpeg's name.
    fps: frames per second.
    options: options of the codec.
    stamps: the frames' times in 1/1000 s, where the rate varies.
    rotation: degrees counterclockwise that players are told to turn by.
    pix_fmt: FFmpeg's name of how pixels are stored.
    muxer: options of the container.
  """
  with av.open(str(path), 'w', options=muxer or {}) as container:
    stream = container.add_stream(codec, rate=fps)
    stream.height, stream.width = images.shape[1:3]
    stream.pix_fmt = pix_fmt
    stream.gop_size = 12
    stream.options = options or {}
    if rotation:
      stream.set_display_rotation(rotation)
    if stamps:
      stream.codec_context.time_base = Fraction(1, 1000)
    for number, image in enumerate(images):
      frame = av.VideoFrame.from_ndarray(image, format='rgb24')
      if stamps:
        frame.pts, frame.time_base = stamps[number], Fraction(1, 1000)
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return str(path)


def set_matrix(path, a: float, b: float, c: float, d: float) -> str:
  """Has players show pixel (x, y) of an MP4 at (a x + c y, b x + d y)."""
  contents = bytearray(pathlib.Path(path).read_bytes())
  place = contents.index(b'tkhd') + 4 + 40  # of version 0
  rows = (a, b, 0, c, d, 0, 0, 0)
  fixed = [round(value * 65536) for value in rows] + [1 << 30]
  struct.pack_into('>9i', contents, place, *fixed)
  pathlib.Path(path).write_bytes(contents)
  return str(path)


def spoil_text(path) -> str:
  """Copies a video; what its text says of who wrote it is not UTF-8."""
  contents = pathlib.Path(path).read_bytes()
  assert b'Lavf' in contents
  copy = pathlib.Path(path).with_stem('spoiled')
  copy.write_bytes(contents.replace(b'Lavf', b'\xffavf'))
  return str(copy)
