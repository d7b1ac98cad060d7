"""MP4 files that count more frames than they can hold."""

import io
import struct

import pytest

from mtnet_jax.data import mp4_boxes

_MOST = 1000


def _box(kind, *contents):
  content = b''.join(contents)
  return struct.pack('>I4s', 8 + len(content), kind) + content


def _numbers(*values):
  return struct.pack(f'>{len(values)}I', *values)


def _track(count, handler=b'vide', kind=b'stsz', delta=512):
  table = [
    _box(kind, _numbers(0, 1, count)),
    _box(b'stts', _numbers(0, 1, count, delta)),
  ]
  info = _box(b'minf', _box(b'stbl', *table))
  name = _box(b'hdlr', _numbers(0, 0), handler, bytes(12))
  return _box(b'trak', _box(b'tkhd', bytes(84)), _box(b'mdia', name, info))


def _check(*boxes, size=0):
  contents = b''.join(boxes)
  file = io.BytesIO(contents.ljust(size, b'\0'))
  mp4_boxes.check_counts(file, max(size, len(contents)), _MOST)


@pytest.mark.parametrize('kind', [b'stsz', b'stz2'])
def test_frames_of_a_track(kind):
  _check(_box(b'ftyp'), _box(b'moov', _track(200, kind=kind)))
  for size, count, most in ((0, 700, ' 4'), (9000, 1001, '1,000')):
    with pytest.raises(ValueError, match=f'has {count:,} frames; .*{most}'):
      _check(_box(b'moov', _track(9), _track(count, kind=kind)), size=size)


def test_samples_of_sound_are_no_frames():
  _check(_box(b'moov', _track(10**6, b'soun', delta=1), _track(9)))
  for handler, delta in ((b'soun', 1024), (b'vide', 1)):
    with pytest.raises(ValueError, match='1,000,000 frames'):
      _check(_box(b'moov', _track(10**6, handler, delta=delta)))


def test_frames_of_fragments():
  fragment = _box(b'moof', _box(b'traf', _box(b'trun', _numbers(0, 50))))
  _check(_box(b'moov'), fragment, fragment, size=200)
  with pytest.raises(ValueError, match='has 250 frames'):
    _check(_box(b'moov'), *5 * [fragment], size=249)


def test_sizes_in_64_bits_and_to_the_end():
  moov = _track(2000)
  wide = struct.pack('>I4sQ', 1, b'moov', 16 + len(moov)) + moov
  endless = struct.pack('>I4s', 0, b'moov') + moov
  too_long = struct.pack('>I4s', 2**32 - 1, b'moov') + moov
  for box in (wide, endless, too_long):
    with pytest.raises(ValueError, match='2,000 frames'):
      _check(_box(b'free', bytes(9)), box)


@pytest.mark.parametrize(
  'contents', [b'', b'\0', bytes(4000), b'RIFF' * 9, b'\x1aE\xdf\xa3' * 90]
)
def test_what_is_no_mp4(contents):
  _check(contents)
