"""What a data set holds and how fast it loads, said and drawn."""

import dataclasses
import io
import math
import os

import pytest
import rich.console

from configs import base
from mtnet_jax.data import pipeline, preparation, probing, report, sources
from mtnet_jax.data.probing import Probe, Speed
from mtnet_jax.errors import UserError
from tests import command_line


@pytest.fixture
def clips(tmp_path, blinking_videos):
  """Five training videos, one of them no video; one of half a second."""
  (tmp_path / 'text.mp4').write_text('no video')
  rows = [
    f'{blinking_videos}/train/{label}/{i}.mp4,{label},train,,'
    for label, i in (('bright', 0), ('bright', 1), ('dark', 0))
  ]
  rows.insert(1, 'text.mp4,dark,train,,')
  rows.append(f'{blinking_videos}/train/dark/1.mp4,dark,train,0.2,0.7')
  (tmp_path / 'labels.txt').write_text('dark\nbright\nnever\n')
  text = '\n'.join(['path,label,split,start,end', *rows])
  (tmp_path / 'clips.csv').write_text(text)
  return tmp_path


def test_videos_are_probed_in_order(clips):
  probes = probing.probe(sources.open_source(clips, 'train'))
  assert [probe.index for probe in probes] == [*range(5)]
  assert [probe.label for probe in probes] == [1, 0, 1, 0, 0]
  good = [probe for probe in probes if probe.index != 1]
  assert {(probe.width, probe.height) for probe in good} == {(48, 32)}
  # 12 frames, 10 a second.
  assert [probe.frames for probe in good] == [12, 12, 12, 5]
  assert [probe.seconds for probe in good] == [1.2, 1.2, 1.2, 0.5]
  assert probes[1].id == 'text.mp4' and 'Invalid data' in probes[1].cause
  assert math.isnan(probes[1].seconds)


def test_a_sample_is_drawn_anew_by_its_seed_only(blinking_videos):
  source = sources.open_source(blinking_videos, 'train')
  first = [p.index for p in probing.probe(source, 6)]
  assert len(set(first)) == 6 and first == sorted(first)
  assert first == [p.index for p in probing.probe(source, 6)]
  assert first != [p.index for p in probing.probe(source, 6, seed=1)]
  assert len(probing.probe(source, 100)) == 16


def test_classes_are_counted(clips, tmp_path):
  source = sources.open_source(clips, 'train')
  probes = probing.probe(source, 2)
  every = {'dark': 3, 'bright': 2, 'never': 0}
  assert report.class_counts(source, clips, 'train', probes) == (every, True)

  out = tmp_path / 'records'
  preparation.write(sources.list_videos(clips), out)
  source = sources.open_source(out, 'train')
  written = every | {'dark': 2}
  assert report.class_counts(source, out, 'train', []) == (written, True)
  (out / 'manifest.json').unlink()
  probes = probing.probe(source)
  assert report.class_counts(source, out, 'train', probes) == (written, True)
  none = dict.fromkeys(every, 0)
  found = report.class_counts(source, out, 'train', probes[:1])
  assert found == (none | {'bright': 1}, False)


@pytest.mark.parametrize(
  'text',
  [
    '{',
    '[]',
    '{"splits": {"val": {}}}',
    '{"splits": {"train": {"classes": 1}}}',
  ],
)
def test_a_damaged_manifest(clips, tmp_path, text):
  out = tmp_path / 'records'
  preparation.write(sources.list_videos(clips), out)
  (out / 'manifest.json').write_text(text)
  source = sources.open_source(out, 'train')
  with pytest.raises(UserError, match=r'manifest\.json is damaged.* Delete it'):
    report.class_counts(source, out, 'train', [])


def test_what_there_is_in_words():
  probes = [
    Probe(i, f'{i}', 0, frames, frames / 25, 240, 320)
    for i, frames in enumerate((10, 50, 100))
  ]
  probes.append(dataclasses.replace(probes[0], width=340))
  probes.append(Probe(4, 'x', 0, cause='broken'))
  lines = report.describe(probes, {'a': 4, 'b': 1, 'c': 0}, 1234, 16)
  assert dict(lines) == {
    'videos': '1,234; looked at: 5',
    'cannot be read': '1 (20.0%)',
    'shorter than a clip (16 frames)': '2 (40.0%)',
    'classes': '3; without a video: 1',
    'videos a class': '0 to 4, median 1',
    'frames': '10 to 100, median 30',
    'seconds': '0.4 to 4.0, median 1.2',
    'width × height': '320 × 240 (3), 340 × 240 (1)',
  }
  nothing = dict(report.describe(probes[-1:], {'a': 1}, 1, 16))
  assert nothing['frames'] == nothing['seconds'] == 'unknown'
  assert nothing['width × height'] == '–'


def test_whether_a_step_would_wait(monkeypatch):
  monkeypatch.setattr(os, 'cpu_count', lambda: 16)
  speed = Speed(loaded=20.0, decoded=25.0, clips=40)
  assert report.judge(speed, 64, 0, 2) == [
    ('one thread, decoding alone', '25.00 clips/s'),
    ('one loader process', '20.00 clips/s'),
    ('of the decoding rate', '80% (40 clips)'),
  ]
  # 64 clips in 0.5 s are 128 a second: six processes give 120.
  for workers, verdict in ((7, 'would not wait'), (6, 'would wait for input')):
    lines = report.judge(speed, 64, 0.5, workers)[3:]
    assert lines[0] == ('a step of 64 clips in 0.5 s', '128.0 clips/s')
    assert lines[1][1] == '7; this machine has 16 cores'
    assert lines[2] == (f'training with data.num_workers={workers}', verdict)
  # Sixteen processes on two cores are no faster than two.
  monkeypatch.setattr(os, 'cpu_count', lambda: 2)
  assert report.judge(speed, 64, 0.5, 16)[-1][1] == 'would wait for input'
  assert report.judge(speed, 20, 0.5, 16)[-1][1] == 'would not wait'


def test_speed_is_of_the_videos_that_can_be_read(clips):
  config = base.get_config()
  config.data.dir = str(clips)
  config.data.update(short_side=24, crop_size=16, input_size=16, num_frames=4)
  config.train.batch_size = 2
  batches = pipeline.build(config, 'train')
  probes = probing.probe(batches.source)
  speed = probing.measure(batches, probes, prefetch=1, seconds=0.0)
  assert speed.clips == 2
  assert speed.loaded > 0 and speed.decoded > 0


def test_broken_videos_are_listed():
  text = io.StringIO()
  broken = [Probe(i, f'[red]{i}', 0, cause='gone') for i in range(22)]
  report.show([('[b]', 'c')], broken, rich.console.Console(file=text, width=80))
  lines = text.getvalue().splitlines()
  assert '[b] │ c' in lines[1]
  assert lines[3] == 'cannot be read: [red]0: gone'
  assert lines[-2:] == ['cannot be read: [red]19: gone', 'and 2 more']


def test_the_command(clips, tmp_path, root):
  done = command_line.run(
    report.COMMAND,
    f'--dir={clips}',
    f'--out={tmp_path}/r.png',
    '--seconds=0',
    '--batch_size=2',
    '--step_time=0.1',
    f'--config={root}/configs/quickstart.py',
  )
  assert done.code == 0, done.stderr
  assert 'cannot be read: text.mp4: Invalid data' in done.stdout
  assert 'a step of 2 clips in 0.1 s' in done.stdout
  assert (tmp_path / 'r.png').stat().st_size > 10_000
  advice = done.stdout.partition('advice:\n')[2].splitlines()
  assert [line[:2] for line in advice] == [f'{i}.' for i in range(1, 7)]
  for line, part in zip(
    advice,
    (
      f"{clips} has no videos of split 'val'; it has: train. Training cannot",
      f"{clips} has no videos of split 'test'; it has: train. Nothing tells",
      '1 of the 5 videos looked at cannot be read: text.mp4.',
      '1 class cannot be learned for want of a training video: never.',
      '2 classes have fewer than 20 videos for training: bright (2), dark (3)',
      # Eight frames, six apart; one video has five frames, the others 12.
      '4 of 4 videos are shorter than a clip: 8 frames with a stride of 6 '
      'span 43, and the shortest has 5. Frames are repeated',
    ),
    strict=True,
  ):
    assert part in line


def test_the_facts_of_folders_and_of_records(tmp_path, blinking_videos):
  folder = tmp_path / 'videos'
  for split, label in (('train', 'Bright'), ('train', 'bright'), ('val', 'Br')):
    (folder / split / label).mkdir(parents=True)
    target = blinking_videos / 'train' / 'bright' / f'{len(label)}.mp4'
    (folder / split / label / 'a.mp4').symlink_to(target)
  source = sources.open_source(folder, 'train')
  data = base.get_config().data
  found = report.gather_facts(
    source, folder, probing.probe(source), {'x': 1}, data
  )
  assert found.sizes == {'train': 2, 'val': 1}
  assert list(found.absent) == ['test']
  assert found.frames == [12, 12] and found.looked_at == 2
  assert (found.num_frames, found.frame_stride) == (16, 5)
  assert [*map(set, found.look_alikes)] == [{'Bright', 'bright'}]
  assert found.shared == [] and found.training_counts == {'x': 1}

  (folder / 'val/Br/b.mp4').symlink_to(folder / 'train/bright/a.mp4')
  found = report.gather_facts(source, folder, [], {}, data)
  ((one, other, count),) = ((s.one, s.other, s.count) for s in found.shared)
  assert (one, other, count) == ('train', 'val', 1)

  out = tmp_path / 'records'
  preparation.write(sources.list_videos(folder), out)
  source = sources.open_source(out, 'val')
  found = report.gather_facts(source, out, [], {}, data)
  assert found.sizes == {'train': 2, 'val': 2}
  assert "no videos of split 'test'" in found.absent['test']


def test_a_wrong_directory(tmp_path):
  done = command_line.run(report.COMMAND, f'--dir={tmp_path}/nowhere')
  assert done.code == 2
  assert done.stderr.startswith('error: There is no data at')
