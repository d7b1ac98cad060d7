"""The packets of a video file, from anywhere in it, exactly.

Of a file that is open only numbers are kept, some bytes a packet: a film of two
hours takes a few megabytes. What a container's index says of where a packet is
may be wrong; therefore a packet that was found by it is known again by where it
lies in the file, and so is every one that follows.
"""

import array
import io
import itertools
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
from av.stream import Disposition

_DEFAULT_RATE = Fraction(25)  # of a stream that names none
_END = 0  # in place of a packet's identity


class Packets:
  """A video stream's packets in the file's order, from any entry on.

  An entry is a packet that decoding can begin at: a keyframe, or the first one.

  Attributes:
    decoder: the stream's, open.
    rate: frames a second, the average where the rate varies.
    time_base: seconds, the unit of the times of presentation.
    stamps: int64, the times of presentation of the packets that are shown.
    end: the time at which the last of them ends; not after its stamp where the
      container does not tell how long it is shown.
    header_frames: the frames that the file's header counts; 0: unknown.
    stamped: whether the stamps tell the frames' order. If not, they are of no
      use but for their number.
  """

  def __init__(self, source: str | bytes):
    """Opens a file; `scan` is to be called next.

    Args:
      source: a path, or a file's contents.

    Raises:
      av.FFmpegError, OSError: it cannot be opened.
    """
    self._source = source
    self._open()

  def scan(self):
    """Reads the whole file once and fills in the attributes.

    Raises:
      ValueError: there is no video stream, or no decoder for it.
      av.FFmpegError: the file is broken.
    """
    self.decoder = self._open_decoder()
    stream = self._stream
    self.rate = stream.average_rate or stream.guessed_rate or _DEFAULT_RATE
    self.time_base = stream.time_base
    self.header_frames = stream.frames
    self.stamps = array.array('q')
    # In AVI, B-frames are stamped out of order.
    self.stamped = self._container.format.name != 'avi'
    self.end = -(2**63)
    self._identities = array.array('q')
    self._entries = [array.array('q') for _ in range(3)]  # pts, dts, number
    for number, packet in enumerate(self._packets):
      self._identities.append(_identity(packet))
      if packet.pts is None:
        self.stamped = False
      pts = packet.pts or 0
      if not packet.is_discard:
        self.stamps.append(pts)
        self.end = max(self.end, pts + (packet.duration or 0))
      if packet.is_keyframe or number == 0:
        entry = (pts, pts if packet.dts is None else packet.dts, number)
        for values, value in zip(self._entries, entry, strict=True):
          values.append(value)
    self.stamped = self.stamped and _all_differ(self.stamps)
    self._identified = _all_differ(self._identities)
    self._identities.append(_END)

  def close(self):
    """Closes the file."""
    self._container.close()

  def entry_before(self, stamp: int) -> int:
    """Returns the last entry from which decoding reaches a time."""
    return max(0, bisect_right(self._entries[0], stamp) - 1)

  def is_ahead(self, entry: int) -> bool:
    """Whether an entry's packet comes after the next one."""
    return self._entries[2][entry] > self._next

  def go_to(self, entry: int):
    """Makes an entry's packet the next one."""
    pts, dts, number = (values[entry] for values in self._entries)
    # Some containers are searched by one of the times, some by the other.
    for time in (pts, dts) if self._identified else ():
      found = self._seek(time)
      if found is not None and found <= number:
        break
    else:
      self._start_anew()
    while self._next < number:
      self.next()

  def next(self) -> av.Packet | None:
    """Returns the next packet, None at the end."""
    packet = next(self._packets, None)
    if self._sought and _identity(packet) != self._identities[self._next]:
      number = self._next
      self._start_anew()
      packet = next(itertools.islice(self._packets, number, None), None)
      self._next = number
    self._next += 1
    return packet

  def _open(self):
    self._container = av.open(
      io.BytesIO(self._source)
      if isinstance(self._source, bytes)
      else f'file:{self._source}',  # `12:30.mp4` names no protocol
      # A stray byte in a title is no reason to refuse a video.
      metadata_errors='replace',
    )
    streams = (
      stream
      for stream in self._container.streams.video
      if not stream.disposition & Disposition.attached_pic  # a cover picture
    )
    self._stream = next(streams, None)
    self._packets = self._demux()
    self._next = 0
    self._sought = False

  def _open_decoder(self) -> av.VideoCodecContext:
    if self._stream is None:
      raise ValueError('there is no video stream in it')
    decoder = self._stream.codec_context
    if decoder is None:
      raise ValueError('there is no decoder for it')
    # One thread: the loader's processes already use every core.
    decoder.thread_type = 'NONE'
    # Now, with nothing left out: AV1's decoder keeps the `skip_frame` that it
    # was opened with.
    decoder.open(strict=False)
    return decoder

  def _demux(self) -> Iterator[av.Packet]:
    return (p for p in self._container.demux(self._stream) if p.size)

  def _seek(self, time: int) -> int | None:
    """Has the container find a time; returns the number of the next packet."""
    try:
      self._container.seek(time, stream=self._stream)
      self._packets = self._demux()
      packet = next(self._packets)
      self._next = self._identities.index(_identity(packet))
    except (av.FFmpegError, StopIteration, ValueError):
      return None
    self._packets = itertools.chain([packet], self._packets)
    self._sought = True
    return self._next

  def _start_anew(self):
    """Makes the first packet the next one, whatever the container can do."""
    self._container.close()
    self._open()


def _identity(packet: av.Packet | None) -> int:
  """Returns a number that tells a packet from the file's others."""
  if packet is None:
    return _END
  return hash((packet.pts, packet.pos, packet.size))


def _all_differ(values: Sequence[int]) -> bool:
  return all(a != b for a, b in itertools.pairwise(sorted(values)))
