"""Packets from anywhere in a file, whatever its index says."""

import os

import pytest

from mtnet_jax.data import packets
from mtnet_jax.data.packets import Packets
from mtnet_jax.data.video import VideoError, VideoReader
from tests.data import coded_video

_LENGTH = 60


@pytest.fixture(params=['b_frames.mp4', 'plain.ts', 'b_frames.avi'])
def path(request, tmp_path):
  codec = 'mpeg4' if request.param.endswith('avi') else 'libx264'
  return coded_video.write(
    tmp_path / request.param,
    coded_video.frames(_LENGTH),
    codec,
    options={'bf': '2'},
  )


def _assert_exact(path):
  with VideoReader(path) as video:
    for indices in ([50], [3], [20, 21, 58], range(_LENGTH)):
      assert coded_video.numbers(video.read(indices)) == [*indices]


def _facts(found):
  return [(packet.pts, packet.size, packet.is_keyframe) for packet in found]


def test_from_every_entry_on(path):
  reader = Packets(path)
  whole = list(reader._packets)
  reader.close()
  reader = Packets(path)
  reader.scan()
  entries = [i for i, p in enumerate(whole) if p.is_keyframe]
  assert len(entries) > 3
  for entry in (2, 0, len(entries) - 1, 1):
    reader.go_to(entry)
    assert reader.is_ahead(len(entries) - 1) == (entry < len(entries) - 1)
    rest = list(iter(reader.next, None))
    assert _facts(rest) == _facts(
      packet for packet in whole[entries[entry] :] if packet.size
    )
  reader.close()


def test_times_lead_to_the_entry_before(tmp_path):
  path = coded_video.write(tmp_path / 'a.mp4', coded_video.frames(_LENGTH))
  reader = Packets(path)
  reader.scan()
  stamps = reader._entries[0]
  assert reader.entry_before(stamps[2]) == 2
  assert reader.entry_before(stamps[2] - 1) == 1
  assert reader.entry_before(stamps[0] - 1) == 0
  assert reader.entry_before(10**9) == len(stamps) - 1
  reader.close()


# What a container may do when it is asked for a time.


def _nothing_found(reader, time):
  raise ValueError


def _late(reader, time):
  return _SEEK(reader, time + int(1 / reader.time_base))


def _at_the_end(reader, time):
  return _SEEK(reader, 10**9)


_SEEK = Packets._seek


@pytest.mark.parametrize('seek', [_late, _at_the_end, lambda *_: None])
def test_an_index_that_leads_astray(path, monkeypatch, seek):
  monkeypatch.setattr(Packets, '_seek', seek)
  _assert_exact(path)


def test_packets_that_follow_are_others_than_were_listed(path, monkeypatch):
  anew = []
  start_anew = Packets._start_anew
  identity = packets._identity
  sought = []

  def seek(reader, time):
    number = _SEEK(reader, time)
    sought.append(reader)
    return number

  def false_identity(packet):
    # Of every fifth packet that is read after the container was asked.
    if sought and packet is not None:
      sought.append(None)
      return identity(packet) + (len(sought) % 5 == 0)
    return identity(packet)

  monkeypatch.setattr(Packets, '_seek', seek)
  monkeypatch.setattr(packets, '_identity', false_identity)
  monkeypatch.setattr(
    Packets, '_start_anew', lambda self: (anew.append(self), start_anew(self))
  )
  _assert_exact(path)
  assert anew


def test_packets_that_cannot_be_told_apart(path, monkeypatch):
  monkeypatch.setattr(packets, '_identity', lambda packet: 7 if packet else 0)
  monkeypatch.setattr(Packets, '_seek', _nothing_found)  # it is not asked
  _assert_exact(path)


def test_a_file_that_is_gone_is_named(path, monkeypatch):
  monkeypatch.setattr(Packets, '_seek', lambda *_: None)
  with VideoReader(path) as video:
    os.unlink(path)
    with pytest.raises(VideoError, match=f'{path}: No such file'):
      video.read([_LENGTH - 1])
