"""Reads the packets of a video file from any place, exactly.

For an open file only numbers are kept, some bytes per packet: a film of two
hours takes a few megabytes. A container's index may be wrong about where a
packet is. Therefore a packet that was found by it, and every one that follows,
is identified by its position in the file.
"""

import array
import collections
import itertools
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
from av.stream import Disposition

from mtnet_jax.data import opening, picture_sizes

_DEFAULT_RATE = Fraction(25)  # of a stream that names none
_DEFAULT_BONUS = 5_000_000  # pixels, as in FFmpeg
_END = 0  # in place of a packet's identity


class Packets:
  """A video stream's packets in the file's order, from any entry on.

  An entry is a packet that decoding can begin at: a keyframe, or the first one.

  Attributes:
    decoder: the stream's, open.
    rate: frames a second, the average where the rate varies.
    time_base: seconds, the unit of the times of presentation.
    stamps: int64, the times of presentation of the frames that are shown.
    num_frames: the number of frames that are shown.
    end: the time at which the last of them ends; after the average time of a
      frame where the container does not tell how long it is shown.
    header_frames: the frames that the file's header counts; 0: unknown.
    stamped: whether the stamps tell the frames' order. If not, they are of no
      use.
    joined: whether the file begins with frames that may lack what they refer
      to, as recordings do that were joined or cut between keyframes.
  """

  def __init__(self, source: str | bytes):
    """Opens a file; `scan` is to be called next.

    Args:
      source: a path, or a file's contents.

    Raises:
      av.FFmpegError, OSError: it cannot be opened.
    """
    self._source = source
    self._index = None  # of the stream, where there is a choice
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
    self.joined = self._list_packets()
    self._identified = _all_differ(self._identities)
    self._identities.append(_END)
    if self.joined:
      self._leave_out_first()
    self.stamped = self.stamped and _all_differ(self.stamps)
    last = max(self.stamps, default=0)
    if self.end <= last:
      self.end = last + max(1, round(1 / self.rate / self.time_base))

  def _list_packets(self) -> bool:
    """Lists all packets, and returns what `joined` says."""
    self.num_frames, joined = 0, False
    self._doubtful = 0  # packets before the second keyframe
    keyframes, first = 0, None
    for number, packet in enumerate(self._packets):
      if number == opening.MAX_FRAMES:
        raise ValueError(f'it has more than {number:,} frames')
      self._identities.append(_identity(packet))
      pts = packet.pts
      if packet.is_keyframe or number == 0:
        keyframes += packet.is_keyframe
        first = pts if keyframes == 1 and packet.is_keyframe else first
        times = (pts or 0, (pts or 0) if packet.dts is None else packet.dts)
        for values, value in zip(self._entries, (*times, number), strict=True):
          values.append(value)
      # From the second keyframe on nothing is missing: the first may be
      # followed by frames that are shown before it.
      self._doubtful += keyframes < 2
      if not keyframes or (
        keyframes == 1
        and self.stamped
        and first is not None
        and (pts is None or pts < first)
      ):
        joined = True
      elif pts is None:
        self.stamped = False
      if packet.is_discard:
        continue
      self.num_frames += 1
      if pts is not None:
        self.stamps.append(pts)
        self.end = max(self.end, pts + (packet.duration or 0))
    return joined

  def _leave_out_first(self):
    """Leaves out what cannot be decoded at the start, as FFmpeg does."""
    # Where frames are counted, all of them have to be.
    packets = iter(self.next, None)
    if self.stamped:
      packets = itertools.islice(packets, self._doubtful)
    self._start_anew()
    shown = []
    for packet in itertools.chain(packets, [None]):
      shown += [frame.pts for frame in self.decode(packet)]
    self._start_anew()
    self.stamped = self.stamped and None not in shown
    if not self.stamped:
      self.num_frames = len(shown)
    elif shown:
      first = min(shown)
      self.stamps = array.array('q', (s for s in self.stamps if s >= first))
      self.num_frames = len(self.stamps)

  def close(self):
    """Closes the file."""
    self._container.close()

  def entry_before(self, stamp: int) -> int:
    """Returns the last entry from which decoding reaches a time."""
    return max(0, bisect_right(self._entries[0], stamp) - 1)

  def is_ahead(self, entry: int) -> bool:
    """Returns whether an entry's packet comes after the next one."""
    return self._entries[2][entry] > self._next

  def go_to(self, entry: int):
    """Makes an entry's packet the next one."""
    pts, dts, number = (values[entry] for values in self._entries)
    counted = self.joined and not self.stamped
    # Some containers are searched by one of the times, some by the other.
    for time in (pts, dts) if self._identified and not counted else ():
      found = self._seek(time)
      if found is not None and found <= number:
        break
    else:
      self._start_anew()
    if counted:
      # How many frames come of packets that lack others depends on what was
      # decoded before, even after the decoder has forgotten it.
      self.decoder = self._open_decoder()
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

  def decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
    """Decodes the packet that `next` gave last.

    Args:
      packet: the packet; None asks for the frames held back.

    Raises:
      av.FFmpegError: it cannot be decoded, and what it refers to is there.
      ValueError: its pictures are too large.
    """
    try:
      return self.decoder.decode(packet)
    except av.InvalidDataError:
      if self.joined and self._next <= self._doubtful:
        return []
      raise
    except av.ArgumentError as error:
      raise ValueError(
        f'FFmpeg refuses its pictures ({error.strerror}), which may have '
        f'{picture_sizes.MAX_PIXELS:,} pixels at most'
      ) from error

  def _open(self):
    self._container = opening.open_container(self._source)
    streams = [
      stream
      for stream in self._container.streams.video
      if not stream.disposition & Disposition.attached_pic  # a cover picture
    ]
    if len(streams) > 1 and self._index is None:
      self._index = self._find_film(streams)
      self._start_anew()
      return
    self._stream = next(iter(streams), None)
    if self._index is not None:
      self._stream = self._container.streams[self._index]
    self._packets = self._demux()
    self._next = 0
    self._sought = False

  def _find_film(self, streams: Sequence[av.VideoStream]) -> int:
    """Returns the index of the stream that FFmpeg plays.

    That is the one with the most pixels, with a large bonus where it is marked
    as default; here, single pictures come last, marked or not.
    """
    counts = collections.Counter()
    for packet in self._container.demux(streams):
      counts[packet.stream.index] += packet.size > 0
      if all(counts[stream.index] > 1 for stream in streams):
        break

    def rank(stream: av.VideoStream) -> tuple[bool, bool, int]:
      decoder = stream.codec_context  # None of an unknown codec
      size = decoder.width * decoder.height if decoder else 0
      if stream.disposition & Disposition.default:
        size += _DEFAULT_BONUS
      return bool(decoder), counts[stream.index] > 1, size

    return max(streams, key=rank).index

  def _open_decoder(self) -> av.VideoCodecContext:
    if self._stream is None:
      raise ValueError('there is no video stream in it')
    decoder = self._stream.codec_context
    if decoder is None:
      raise ValueError('there is no decoder for it')
    if decoder.width and decoder.height:
      picture_sizes.check(decoder.width, decoder.height)
    # One thread is used: the loader's processes already use every core.
    decoder.thread_type = 'NONE'
    decoder.options = opening.DECODER_OPTIONS
    # The decoder is opened now, with nothing skipped: AV1's keeps the
    # `skip_frame` that it was opened with.
    decoder.open(strict=False)
    return decoder

  def _demux(self) -> Iterator[av.Packet]:
    return (p for p in self._container.demux(self._stream) if p.size)

  def _seek(self, time: int) -> int | None:
    """Seeks a time in the container; returns the number of the next packet."""
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
  """Returns a number that identifies a packet within its file."""
  if packet is None:
    return _END
  return hash((packet.pts, packet.pos, packet.size))


def _all_differ(values: Sequence[int]) -> bool:
  return all(a != b for a, b in itertools.pairwise(sorted(values)))
