"""Records of a run, of one that was interrupted, and on a disk that is full."""

import contextlib
import errno
import json
import struct
from unittest import mock

import pytest
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

from mtnet_jax.locations import as_path
from mtnet_jax.runs import metric_writer
from tests.disks import fill


def read_events(folder):
  """All events of a folder in order, each checked by its checksums."""
  events = []
  for path in sorted(folder.glob('events.*'), key=str):
    data = path.read_bytes()
    while data:
      (size,) = struct.unpack('<Q', data[:8])
      record, data = data[: 16 + size], data[16 + size :]
      sums = struct.unpack('<I', record[8:12]), struct.unpack('<I', record[-4:])
      assert sums == ((masked_crc32c(record[:8]),),
                      (masked_crc32c(record[12:-4]),))  # fmt: skip
      events.append(event_pb2.Event.FromString(record[12:-4]))
  return events


def scalars(folder):
  return [
    (event.step, value.tag, pytest.approx(value.simple_value))
    for event in read_events(folder)
    for value in event.summary.value
  ]


def test_a_resumed_run_has_every_step_once(tmp_path):
  writer = metric_writer.MetricWriter(tmp_path, 0)
  for step in (10, 20, 30):
    writer.write(step, {'train/loss': 1 / step})
  writer.close()
  # Killed while writing: a line without its end.
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 40, "train/lo')

  writer = metric_writer.MetricWriter(tmp_path, 20)
  writer.write(30, {'train/loss': 7})
  writer.close()

  records = metric_writer.read(tmp_path / 'metrics.jsonl')
  assert records == [
    {'step': 10, 'train/loss': 0.1},
    {'step': 20, 'train/loss': 0.05},
    {'step': 30, 'train/loss': 7.0},
  ]


def test_tensorboard_hides_what_a_resumed_run_does_again(tmp_path):
  for first_step, seconds in ((0, 1e9), (20, 1e9 + 0.5)):
    writer = metric_writer.MetricWriter(
      tmp_path, first_step, clock=lambda seconds=seconds: seconds
    )
    writer.write(30, {'train/loss': 1.0, 'train/top1': first_step})
    writer.close()
  first, begun, record, *again = read_events(tmp_path / 'tensorboard')
  assert first.file_version == again[0].file_version == 'brain.Event:2'
  assert begun.step == 1 and again[1].step == 21
  assert again[1].session_log.status == event_pb2.SessionLog.START
  assert record.wall_time == 1e9 and again[2].wall_time == 1e9 + 0.5
  assert scalars(tmp_path / 'tensorboard') == [
    (30, 'train/loss', 1.0),
    (30, 'train/top1', 0.0),
    (30, 'train/loss', 1.0),
    (30, 'train/top1', 20.0),
  ]


def test_records_can_be_read_while_the_run_goes_on(tmp_path):
  writer = metric_writer.MetricWriter(tmp_path, 0)
  writer.write(1, {'val/top1': 0.5})
  line = (tmp_path / 'metrics.jsonl').read_text()
  assert json.loads(line) == {'step': 1, 'val/top1': 0.5}
  assert scalars(tmp_path / 'tensorboard') == [(1, 'val/top1', 0.5)]
  writer.close()


def test_no_file_has_no_records(tmp_path):
  assert metric_writer.read(tmp_path / 'metrics.jsonl') == []


@pytest.mark.parametrize('written_before', [0, 3])
def test_a_full_disk_is_told_at_every_write_and_tears_nothing(
  small_disk, written_before
):
  """For good, and then again with room; full at the first write or later."""
  writer = metric_writer.MetricWriter(small_disk, 0)
  for step in range(written_before):
    writer.write(step, {'train/loss': step})
  filler = fill(small_disk)
  long = {f'gate_open/block_{i}': 0.25 for i in range(200)}
  for step in range(100, 130):  # more than any queue holds
    with pytest.raises(OSError) as error:
      writer.write(step, long)
    assert error.value.errno == errno.ENOSPC
  filler.unlink()
  writer.write(200, {'train/loss': 200.0})
  writer.close()

  steps = [*range(written_before), 200]
  lines = (small_disk / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line) for line in lines] == [
    {'step': step, 'train/loss': step} for step in steps
  ]
  assert scalars(small_disk / 'tensorboard') == [
    (step, 'train/loss', step) for step in steps
  ]


def test_records_on_a_bucket(bucket):
  folder = as_path(bucket)
  for first_step in (0, 20):
    writer = metric_writer.MetricWriter(
      bucket, first_step, clock=lambda first=first_step: 1e9 + first
    )
    for step in (10, 20, 30):
      if step > first_step:
        writer.write(step, {'train/loss': first_step + 1 / step})
        # Before it is closed: readers see it at once.
        assert metric_writer.read(folder / 'metrics.jsonl')[-1]['step'] == step
    writer.close()
  assert metric_writer.read(f'{bucket}/metrics.jsonl') == [
    {'step': 10, 'train/loss': 0.1},
    {'step': 20, 'train/loss': 0.05},
    {'step': 30, 'train/loss': 20 + 1 / 30},
  ]
  steps = [step for step, *_ in scalars(folder / 'tensorboard')]
  assert steps == [10, 20, 30, 30]


def test_what_a_bucket_refuses_is_written_with_nothing_torn(bucket):
  writer = metric_writer.MetricWriter(bucket, 0)
  writer.write(1, {'train/loss': 1})
  path = as_path(bucket) / 'metrics.jsonl'
  with mock.patch.object(type(path), 'write_bytes', side_effect=OSError('503')):
    with pytest.raises(OSError, match='503'):
      writer.write(2, {'train/loss': 2})
  writer.write(3, {'train/loss': 3})
  writer.close()
  assert [record['step'] for record in metric_writer.read(path)] == [1, 3]


_FOREIGN = ['[' * 10**5, '{"epoch": 3}', '7', '{"step": "2"}', '\x00', '{"st']


@pytest.mark.parametrize('line', [*_FOREIGN, '{"step": 2, "a": [1]}'])
def test_lines_that_are_no_records_are_left_out_and_kept(
  tmp_path, line, caplog
):
  path = tmp_path / 'metrics.jsonl'
  content = f'{{"step": 1, "a": 0.5}}\n{line}\n{{"step": 2, "a": 0.25}}\n'
  path.write_text(content)
  wanted = [{'step': 1, 'a': 0.5}, {'step': 2, 'a': 0.25}]
  assert metric_writer.read(path) == wanted
  assert '1 lines are no records' in caplog.text
  with contextlib.closing(
    metric_writer.MetricWriter(tmp_path, 2, clock=lambda: 77.0)
  ) as writer:
    writer.write(3, {'a': 0.125})
  assert metric_writer.read(path) == [*wanted, {'step': 3, 'a': 0.125}]
  assert (tmp_path / 'metrics-77.damaged').read_text() == content


def test_bytes_that_are_no_text(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(b'\xff\xfe\n{"step": 1, "a": 2}\n')
  assert metric_writer.read(path) == [{'step': 1, 'a': 2}]
