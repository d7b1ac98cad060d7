"""Segment sampling: every consumer takes the frames that evaluation takes."""

import json

import numpy as np
import pytest

from mtnet_jax.data import loading, pipeline
from mtnet_jax.errors import UserError
from mtnet_jax.prediction import timeline
from mtnet_jax.prediction.user_videos import InputError
from tests.data import coded_video
from tests.prediction_runs import BrightnessPredictor
from tests.tiny_runs import tiny_config

_STEP = 5  # levels of brightness from a frame to the next
_LENGTHS = (30, 13)
_CHANGES = {'eval__num_clips': 2, 'eval__num_crops': 1}
# Of 4 frames at a stride of 4: a window of 16, in 30 frames and in 13.
_EXPECTED = {
  # tick 7.5 (3.75, …), and 3.25 (1.625, …); then the parts' beginnings.
  ('uniform', 30): [[3, 11, 18, 26], [0, 7, 15, 22]],
  ('uniform', 13): [[1, 4, 8, 11], [0, 3, 6, 9]],
  # The last window begins at 30 - 16; 12 is the last of 13, and nothing wraps.
  ('dense', 30): [[0, 4, 8, 12], [14, 18, 22, 26]],
  ('dense', 13): [[0, 4, 8, 12]] * 2,
}


def _images(count):
  """Frame i has brightness 5·i; square, so that all crops are the same."""
  levels = _STEP * np.arange(count, dtype=np.uint8)
  return np.broadcast_to(levels[:, None, None, None], (count, 32, 32, 3))


def _numbers(clips):
  """The frame numbers of clips (…, t, h, w, c)."""
  return np.rint(clips.mean(axis=(-3, -2, -1)) / _STEP).astype(int).tolist()


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  """In both splits a video of 30 frames and one of 13, ten a second."""
  root = tmp_path_factory.mktemp('videos')
  for split in ('train', 'test'):
    for name, length in zip(('bright', 'dark'), _LENGTHS, strict=True):
      path = root / split / name / f'{length}.mp4'
      path.parent.mkdir(parents=True)
      stamps = range(0, 100 * length, 100)
      coded_video.write(
        path, _images(length), stamps=stamps, options={'qp': '1'}
      )
  return root


def _config(videos, sampling, **changes):
  changes = {'data__frame_stride': 4, **_CHANGES, **changes}
  return tiny_config(videos, data__sampling=sampling, **changes)


def _predictor(sampling, **changes):
  changes = {'data__frame_stride': 4, **_CHANGES, **changes}
  return BrightnessPredictor(data__sampling=sampling, **changes)


@pytest.mark.parametrize('sampling', ['uniform', 'dense'])
def test_evaluation_and_prediction_take_the_same_frames(videos, sampling):
  config = _config(videos, sampling)
  predictor = _predictor(sampling)
  for batch in loading.iterate(pipeline.build(config, 'test')):
    for name, clips in zip(batch['ids'], batch['clips'], strict=True):
      if name:
        length = int(name.split('/')[-1][:-4])
        assert _numbers(clips) == _EXPECTED[sampling, length]
        views = predictor.views(videos / name)
        np.testing.assert_array_equal(views, clips)
        assert _numbers(predictor.views(_images(length))) == _numbers(clips)


def test_training_draws_from_each_part(videos):
  config = _config(videos, 'uniform', train__num_steps=12, data__flip=False)
  for batch in loading.iterate(pipeline.build(config, 'train')):
    for name, row in zip(batch['ids'], _numbers(batch['clips']), strict=True):
      length = int(name.split('/')[-1][:-4])
      for part, number in enumerate(row):
        assert part * length // 4 <= number < (part + 1) * length // 4


def test_training_begins_anywhere_and_wraps_round(videos):
  config = _config(
    videos, 'dense', train__num_steps=12, data__flip=False, data__frame_stride=5
  )
  starts = set()
  for batch in loading.iterate(pipeline.build(config, 'train')):
    for name, row in zip(batch['ids'], _numbers(batch['clips']), strict=True):
      length = int(name.split('/')[-1][:-4])
      assert row == [(row[0] + i) % length for i in (0, 5, 10, 15)]
      # A window is 20 frames; 13 begin again.
      assert row[0] <= 10 if length == 30 else row == [0, 5, 10, 2]
      starts |= {row[0]} if length == 30 else set()
  assert len(starts) > 5


def test_multigrid_takes_some_of_the_frames_evenly(videos):
  config = _config(
    videos,
    'uniform',
    train__batch_size=2,
    train__num_steps=40,
    train__long_cycle=True,
    data__flip=False,
  )
  batches = pipeline.build(config, 'train')
  whole = batches.at_base_shape(1)
  shorter = [k for k in range(40) if batches.multigrid.shape(k)[1] == 2]
  assert shorter
  first = batches.multigrid.first_sample(shorter[0])
  drawn = [
    whole.draw_indices(
      int(name.split('/')[-1][:-4]),
      np.random.default_rng((config.seed, first + row)),
    )
    for row, name in enumerate(batches[shorter[0]]['ids'])
  ]
  found = _numbers(batches[shorter[0]]['clips'])
  assert found == [indices[[0, 2]].tolist() for indices in drawn]


@pytest.mark.parametrize(
  ('sampling', 'message'),
  [
    ('uniform', 'has 3 frames, a clip has 4'),
    ('dense', 'has 12 frames, a clip has 4, spread over 13'),
  ],
)
def test_short_videos_may_be_refused(tmp_path, sampling, message):
  length = int(message.split()[1])
  for name in ('bright', 'dark'):
    path = tmp_path / 'test' / name / 'a.mp4'
    path.parent.mkdir(parents=True)
    coded_video.write(path, _images(length))
  config = _config(tmp_path, sampling, data__short_videos='error')
  with pytest.raises(UserError, match=f'{message}. Remove'):
    pipeline.build(config, 'test')[0]
  predictor = _predictor(sampling, data__short_videos='error')
  with pytest.raises(InputError, match=f'{message}, and the run refuses'):
    predictor(_images(length))
  # 'repeat' takes them all the same, and says so.
  assert _predictor(sampling)(_images(length)).note.startswith('shorter than')


def test_an_unknown_sampling(videos):
  with pytest.raises(UserError, match="'tsn'; allowed: clip, uniform, dense"):
    pipeline.build(_config(videos, 'tsn'), 'test')


# A clip that is looked at.


def test_the_times_of_the_frames_that_are_explained(videos):
  video = videos / 'test/bright/30.mp4'
  clip, seconds = _predictor('uniform').central_clip(video)
  assert _numbers(clip) == [3, 11, 18, 26]
  np.testing.assert_allclose(seconds, [0.3, 1.1, 1.8, 2.6])
  # A window of 16 in the middle; and one whose middle is frame 20.
  clip, seconds = _predictor('dense').central_clip(video)
  assert _numbers(clip) == [7, 11, 15, 19]
  clip, seconds = _predictor('dense').central_clip(video, at=2.0)
  assert _numbers(clip) == [14, 18, 22, 26]
  np.testing.assert_allclose(seconds, [1.4, 1.8, 2.2, 2.6])


def test_a_window_that_wraps_round_is_explained_as_it_is():
  predictor = _predictor('dense', data__frame_stride=5)
  clip, seconds = predictor.central_clip(_images(13), at=0.4)
  assert _numbers(clip) == [0, 5, 10, 2]
  np.testing.assert_allclose(seconds, np.array([0, 5, 10, 2]) / 25)


def test_no_moment_of_a_clip_of_the_whole_video():
  with pytest.raises(UserError, match=r'whole video .*leave out at=0\.4'):
    _predictor('uniform').central_clip(_images(30), at=0.4)


# Timelines.


def test_a_timeline_of_windows_with_uniform_sampling():
  predictor = _predictor('uniform')
  judged = timeline.judge(predictor, _images(40), window=0.8, hop=0.8)
  # 20 frames a window, tick 5.
  np.testing.assert_allclose(judged.starts, [0, 0.8])
  expected = [_STEP * np.mean([s + f for f in (2, 7, 12, 17)]) for s in (0, 20)]
  np.testing.assert_allclose(
    judged.probabilities[:, 0], np.array(expected) / 255, rtol=1e-6
  )
  with pytest.raises(UserError, match=r'whole video .*give --window=SECONDS'):
    timeline.judge(predictor, _images(40), hop=0.8)


def test_a_timeline_of_dense_windows():
  judged = timeline.judge(_predictor('dense'), _images(26))
  # 13 frames from the first to the last of a clip, 6 to the next.
  starts = np.array([0, 6, 12, 13])
  np.testing.assert_allclose(judged.starts, starts / 25)
  expected = [_STEP * np.mean([s, s + 4, s + 8, s + 12]) for s in starts]
  np.testing.assert_allclose(
    judged.probabilities[:, 0], np.array(expected) / 255, rtol=1e-6
  )


def test_no_note_on_the_length_of_a_whole_video():
  assert _predictor('uniform')(np.zeros((900, 32, 32, 3), np.uint8)).note == ''
  note = _predictor('dense')(np.zeros((200, 32, 32, 3), np.uint8)).note
  assert note.startswith('8 s long, and a clip is 0.5 s')


# Files from before the key, and with it.


def test_what_is_written_says_how_frames_are_taken(tmp_path):
  """A run without the key has clips; one with another value is refused."""
  from mtnet_jax.runs import folder

  config = tiny_config('', data__sampling='dense')
  path = tmp_path / 'config.json'
  path.write_text(config.to_json_best_effort())
  assert folder.read_config(path).data.sampling == 'dense'
  sections = json.loads(path.read_text())
  del sections['data']['sampling']
  path.write_text(json.dumps(sections))
  assert folder.read_config(path).data.sampling == 'clip'
  sections['data']['sampling'] = 'tsn'
  path.write_text(json.dumps(sections))
  with pytest.raises(
    UserError, match=r"data\.sampling \(='tsn'\) of .*'dense'"
  ):
    folder.read_config(path)
