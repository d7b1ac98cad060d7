"""Opens files as videos, and refuses what must not be opened.

A file that is named like a video may be anything: a pipe that never ends, a
list that leads to other files and addresses, or a header that asks for all the
memory there is. Such a file is refused before FFmpeg acts on it.
"""

import errno
import io
import os
import stat

import av

from mtnet_jax.data import mp4_boxes, picture_sizes

MAX_FRAMES = 2**22  # 19 hours at 60 frames a second

# FFmpeg's names of containers that have everything in them. Not among them are
# lists (HLS, DASH, concat), numbered pictures, devices and network streams.
_FORMATS = """
  apng asf avi avs avs2 avs3 cavsvideo cine dhav dirac dnxhd dv evc flic flv
  gif gxf h261 h263 h264 hevc ivf jpegxl_anim kux live_flv lvf lxf m4v matroska
  mjpeg mjpeg_2000 mov mpeg mpegts mpegtsraw mpegvideo mpjpeg mtv mvi mxf nsv
  nut nuv obu ogg pva r3d rm roq ser smk swf thp ty vc1 vc1test vivo vvc wtv xmv
  yuv4mpegpipe
""".split()
_OPTIONS = {
  'format_whitelist': ','.join(_FORMATS),
  'protocol_whitelist': 'file',
  'max_pixels': str(picture_sizes.MAX_PIXELS),
}
# A stray byte in a title must not refuse a video. PyAV 19 lacks the option and
# never refuses one.
_TAKES_ANY_BYTES = int(av.__version__.split('.')[0]) >= 19
_METADATA = {} if _TAKES_ANY_BYTES else {'metadata_errors': 'replace'}
DECODER_OPTIONS = {'max_pixels': _OPTIONS['max_pixels']}
"""The options that decoders are to be opened with."""

_KINDS = {
  stat.S_IFIFO: 'a named pipe',
  stat.S_IFSOCK: 'a socket',
  stat.S_IFCHR: 'a device',
  stat.S_IFBLK: 'a device',
}


def check_regular(path: str | os.PathLike) -> int:
  """Returns the size of a file in bytes, perhaps behind a link.

  Args:
    path: the path to read.

  Raises:
    ValueError: it is a pipe, a socket or a device, which may never end.
    OSError: it is a folder, or is not there.
  """
  status = os.stat(path)
  kind = stat.S_IFMT(status.st_mode)
  if kind == stat.S_IFDIR:
    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
  if kind != stat.S_IFREG:
    what = _KINDS.get(kind, 'something else')
    raise ValueError(f'it is {what}; only regular files are read')
  return status.st_size


def open_container(source: str | bytes) -> av.container.InputContainer:
  """Opens a video file, which the caller closes.

  Args:
    source: a path, or a file's contents.

  Raises:
    ValueError: it is no regular file, of no format that is read, or says of
      itself what cannot be.
    av.FFmpegError, OSError: it cannot be opened.
  """
  if isinstance(source, bytes):
    file = io.BytesIO(source)
    mp4_boxes.check_counts(file, len(source), MAX_FRAMES)
    file.seek(0)
    return _open(file)
  size = check_regular(source)
  with open(source, 'rb') as file:
    mp4_boxes.check_counts(file, size, MAX_FRAMES)
  return _open(f'file:{source}')  # `12:30.mp4` names no protocol


def _open(file: str | io.BytesIO) -> av.container.InputContainer:
  try:
    return av.open(file, options=_OPTIONS, **_METADATA)
  except av.ArgumentError as error:
    raise ValueError(
      'it is of no format that is read, such as MP4, Matroska, WebM, AVI, '
      'MPEG or GIF'
    ) from error
