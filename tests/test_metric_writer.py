"""Records of a run, and of one that was interrupted."""

import json

from mtnet_jax import metric_writer


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


def test_records_can_be_read_while_the_run_goes_on(tmp_path):
  writer = metric_writer.MetricWriter(tmp_path, 0)
  writer.write(1, {'val/top1': 0.5})
  line = (tmp_path / 'metrics.jsonl').read_text()
  assert json.loads(line) == {'step': 1, 'val/top1': 0.5}
  writer.close()
  assert list((tmp_path / 'tensorboard').glob('events.*'))


def test_no_file_has_no_records(tmp_path):
  assert metric_writer.read(tmp_path / 'metrics.jsonl') == []
