"""The picture of a batch: frames where they should be, and all of the text."""

import functools

import cv2
import numpy as np
import pytest

from configs import base
from mtnet_jax.data import pipeline, preview
from mtnet_jax.errors import UserError
from tests import command_line


def _clips(n, t, size):
  """uint8 (n, t, size, size, 3): every frame of a color of its own."""
  number = np.arange(n * t)
  colors = np.stack([40 + 3 * number, 200 - 3 * number, 60 + 7 * number % 150])
  colors = colors.T.reshape(n, t, 1, 1, 3)
  return np.broadcast_to(colors, (n, t, size, size, 3)).astype(np.uint8)


def _draw(clips, path, names=None, caption=('A caption',)):
  names = names or [('hug', 'a.mp4', '')] * len(clips)
  preview.draw(preview.Sheet(clips, names, caption), path)
  return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def _boxes(picture, clips):
  """(n, t, 4): top, bottom, left and right of each frame, all of its color."""
  boxes = []
  for frame in clips.reshape(-1, *clips.shape[2:]):
    rows, columns = np.nonzero((picture == frame[0, 0]).all(axis=-1))
    box = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    assert len(rows) == (box[1] - box[0]) * (box[3] - box[2])
    boxes.append(box)
  return np.array(boxes).reshape(*clips.shape[:2], 4)


@pytest.mark.parametrize(
  ('frames', 'size', 'expected'),
  [
    (4, 40, 120),  # three times
    (4, 200, 200),
    (16, 224, 97),  # 1600 / 16 less a gap of three pixels
    (3, 128, 128),
    (1, 24, 120),
  ],
)
def test_frames_stand_in_rows_at_equal_distances(
  tmp_path, frames, size, expected
):
  clips = _clips(3, frames, size)
  boxes = _boxes(_draw(clips, tmp_path / 'a.png'), clips)
  assert (boxes[..., 1] - boxes[..., 0] == expected).all()
  assert (boxes[..., 3] - boxes[..., 2] == expected).all()
  assert (boxes[..., 0] == boxes[:, :1, 0]).all()
  assert (boxes[..., 2] == boxes[:1, :, 2]).all()
  assert (np.diff(boxes[0, :, 2]) == expected + 3).all()
  assert len(set(np.diff(boxes[:, 0, 0]))) == 1


@pytest.mark.parametrize('name', ['W' * 200, 'a word ' * 30, '$x_2$', 'ü'])
def test_text_is_beside_the_frames(tmp_path, name):
  clips = _clips(2, 4, 100)
  names = [(name, name, 'augmented'), ('hug', 'a.mp4', '')]
  picture = _draw(clips, tmp_path / 'a.png', names, [name, 'short'])
  boxes = _boxes(picture, clips)  # every frame is whole
  left = boxes[0, 0, 2]
  inked = (picture < 250).any(axis=-1)
  assert not inked[boxes[0, 0, 0] :, left - 8 : left].any()
  for row in range(2):  # there is text, and it ends before the next row's
    beside = inked[boxes[row, 0, 0] : boxes[row, 0, 1] + 8, :left]
    assert beside.any()
    assert not beside[-4:].any()
  caption = inked[: boxes[0, 0, 0] - 4]
  assert caption.any()
  assert not caption[:, -8:].any()


def _config(directory, **changes):
  config = base.get_config()
  config.data.update(dir=str(directory), num_frames=4, frame_stride=2)
  config.data.update(short_side=32, crop_size=32, input_size=32)
  config.train.update(batch_size=4, num_steps=8)
  config.eval.update(num_clips=2, num_crops=3, clips_per_step=12)
  config.eval.update(crop_size=32, input_size=32)
  config.data.update(changes)
  return config


def test_a_training_batch(blinking_videos):
  config = _config(blinking_videos, augment_share=0.5)
  config.train.long_cycle = True
  dataset = pipeline.build(config, 'train')
  sheet = preview.training_sheet(dataset, 1, 7)
  batch = dataset[1]
  # 16 clips of 2 frames, 32/√2 = 22.6 pixels
  np.testing.assert_array_equal(sheet.clips, batch['clips'][:7])
  assert sheet.caption[0] == (
    'Training batch 1 of 8: 16 clips × 2 frames × 24 × 24 pixels'
  )
  config.data.augment_share = 0.0
  plain = pipeline.build(config, 'train')[1]['clips']
  changed = [(a != b).any() for a, b in zip(batch['clips'], plain, strict=True)]
  assert 0 < sum(changed[:7]) < 7
  assert f'7 clips shown, {sum(changed[:7])} of them' in sheet.caption[1]
  assert 'of all clips 50% are' in sheet.caption[1]
  for row, (label, name, note) in enumerate(sheet.names):
    assert label == dataset.labels[batch['labels'][row]]
    assert name == batch['ids'][row]
    assert note == ('augmented' if changed[row] else '')


def test_a_batch_smaller_than_asked_for(blinking_videos):
  dataset = pipeline.build(_config(blinking_videos), 'train')
  assert len(preview.training_sheet(dataset, 0, 20).clips) == 4


def test_an_evaluation_batch(blinking_videos, tmp_path):
  (tmp_path / 'test').symlink_to(blinking_videos / 'test')
  dataset = pipeline.build(_config(tmp_path), 'test')
  sheet = preview.evaluation_sheet(dataset, 0, 8)
  clips = dataset[0]['clips']
  np.testing.assert_array_equal(sheet.clips[5], clips[0, 5])
  np.testing.assert_array_equal(sheet.clips[7], clips[1, 1])
  assert sheet.names[4] == ('bright', 'test/bright/0.mp4', 'clip 2, crop 2')
  assert sheet.names[6] == ('bright', 'test/bright/1.mp4', 'clip 1, crop 1')
  assert '12 clips × 4 frames × 32 × 32 pixels' in sheet.caption[0]


def test_broken_videos_are_named(blinking_videos, tmp_path):
  for split in ('train', 'test'):
    for name in ('bright', 'dark'):
      folder = tmp_path / split / name
      folder.mkdir(parents=True)
      source = blinking_videos / split / name / '0.mp4'
      (folder / 'good.mp4').write_bytes(source.read_bytes())
  for split in ('train', 'test'):
    (tmp_path / split / 'bright' / 'good.mp4').write_text('no video')
  config = _config(tmp_path)
  sheet = preview.training_sheet(pipeline.build(config, 'train'), 0, 4)
  cause = 'bright/good.mp4: Invalid data found when processing input'
  assert f'left out: train/{cause}' in sheet.caption
  sheet = preview.evaluation_sheet(pipeline.build(config, 'test'), 0, 4)
  assert f'not readable: test/{cause}' in sheet.caption


def test_steps_that_are_not_there(blinking_videos):
  for split, make in (
    ('train', preview.training_sheet),
    ('test', preview.evaluation_sheet),
  ):
    dataset = pipeline.build(_config(blinking_videos), split)
    last = len(dataset) - 1
    with pytest.raises(UserError, match=f'there are the batches 0 to {last}'):
      make(dataset, last + 1, 4)


def test_the_command(root, blinking_videos, tmp_path):
  out = tmp_path / 'batch.png'
  run = functools.partial(
    command_line.run,
    preview.COMMAND,
    f'--config={root}/configs/quickstart.py',
    f'--config.data.dir={blinking_videos}',
  )
  done = run(f'--out={out}', '--config.data.short_side=48', '--clips=2')
  assert done.code == 0, done.stderr
  assert 'Training batch 0 of 15: 32 clips × 8 frames × 48' in done.stdout
  # 8 frames of 96 pixels
  assert cv2.imread(str(out)).shape[1] > 8 * 96
  done = run('--out=batch.jpg')
  assert done.code == 2
  assert done.stderr.splitlines()[-1] == (
    'error: --out=batch.jpg must be a .png file in a folder that exists.'
  )
