"""The stick figures: bodies, actions, pictures, files."""

import csv
import dataclasses
import hashlib
import itertools
import subprocess
import sys

import av
import cv2
import numpy as np
import pytest

from mtnet_jax.datasets.stick_figures import (
  actions,
  movement,
  prepare,
  sets,
  shapes,
  skeleton,
  videos,
)
from mtnet_jax.errors import UserError

_COUNTS = {'train': 1, 'val': 1, 'test': 1}
_SIDES = ('left', 'right')


def _perform(name, seed=0, frames=40):
  """A stage of 2 seconds, with pauses, and the joints of its people."""
  seconds = np.linspace(0, 2, frames)
  phase = np.clip((seconds / 2 - 0.08) / 0.8, 0, 1)
  stage = actions.perform(name, phase, seconds, np.random.default_rng(seed))
  joints = [skeleton.solve(p.body, p.motion) for p in stage.performers]
  return stage, joints


def _joint(joints, name):
  return joints[:, skeleton.INDEX[name]]


def _angle(joints, first, middle, last):
  a = _joint(joints, first) - _joint(joints, middle)
  b = _joint(joints, last) - _joint(joints, middle)
  cos = (a * b).sum(-1)
  cos = cos / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
  return np.degrees(np.arccos(np.clip(cos, -1, 1)))


def _digests(directory):
  return {
    str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest()
    for p in directory.rglob('*')
    if p.is_file()
  }


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """A small data set, made in this process."""
  directory = tmp_path_factory.mktemp('made')
  prepare.prepare(directory, _COUNTS, seed=3)
  return directory


@pytest.fixture
def two_classes(monkeypatch):
  two = dataclasses.replace(sets.SETS['actions'], names=('approach', 'wave'))
  monkeypatch.setitem(sets.SETS, 'actions', two)


def test_two_bones_meet_the_law_of_cosines():
  # A 3-4-5 triangle: the elbow lies at (9/5, 12/5) when bent upwards.
  middle, end = skeleton.two_bone(
    np.zeros((1, 3)), np.array([[5.0, 0, 0]]), 3.0, 4.0,
    np.array([[0.3, 1.0, 0.0]]),
  )  # fmt: skip
  np.testing.assert_allclose(middle, [[1.8, 2.4, 0]], atol=1e-12)
  np.testing.assert_allclose(end, [[5, 0, 0]], atol=1e-12)


@pytest.mark.parametrize('distance', [0.0, 0.1, 6.9, 20.0])
def test_two_bones_keep_their_lengths_out_of_reach(distance):
  target = np.array([[0.0, -distance, 0.0]])
  middle, end = skeleton.two_bone(
    np.zeros((1, 3)), target, 3.0, 4.0, np.array([[1.0, 0, 0]])
  )
  assert np.linalg.norm(middle) == pytest.approx(3)
  assert np.linalg.norm(end - middle) == pytest.approx(4)


@pytest.mark.parametrize('name', actions.NAMES)
def test_limbs_keep_their_lengths_and_bend_the_right_way(name):
  for seed in range(4):
    stage, all_joints = _perform(name, seed)
    for person, joints in zip(stage.performers, all_joints, strict=True):
      body = person.body
      assert np.isfinite(joints).all()
      for side in _SIDES:
        chain = {
          ('shoulder', 'elbow'): body.upper_arm,
          ('elbow', 'hand'): body.forearm,
          ('hip', 'knee'): body.thigh,
          ('knee', 'ankle'): body.shank,
          ('ankle', 'toe'): body.foot,
        }
        for (a, b), length in chain.items():
          bone = _joint(joints, f'{side}_{a}') - _joint(joints, f'{side}_{b}')
          np.testing.assert_allclose(np.linalg.norm(bone, axis=-1), length)
        for limb in (('shoulder', 'elbow', 'hand'), ('hip', 'knee', 'ankle')):
          angle = _angle(joints, *(f'{side}_{part}' for part in limb))
          assert angle.min() > 34 and angle.max() < 177
        leg = (f'{side}_{part}' for part in ('hip', 'knee', 'ankle'))
        hip, knee, ankle = (_joint(joints, part) for part in leg)
        # The shank folds backwards under the thigh, wherever the leg is.
        turn = np.cross(knee - hip, ankle - knee)
        assert (turn * person.left).sum(-1).min() > 0


@pytest.mark.parametrize('name', actions.NAMES)
def test_feet_stay_on_the_floor(name):
  for seed in range(4):
    stage, all_joints = _perform(name, seed)
    for person, joints in zip(stage.performers, all_joints, strict=True):
      ankles = np.stack([_joint(joints, f'{s}_ankle') for s in _SIDES], 1)
      assert ankles[..., 1].min() > person.body.ankle - 1e-9
      if name != 'jump':  # somebody stands on one foot at least
        assert (ankles[..., 1].min(1) < person.body.ankle + 0.03).all()


def test_feet_that_stand_do_not_slide():
  _, all_joints = _perform('approach', frames=80)
  for joints in all_joints:
    ankles = np.stack([_joint(joints, f'{s}_ankle') for s in _SIDES], 1)
    speed = np.linalg.norm(np.diff(ankles, axis=0), axis=-1)
    # One foot swings between two frames, or changes over with the other.
    assert (speed.min(1) < 0.01).mean() > 0.9


def test_there_are_classes_enough():
  assert len(actions.NAMES) == 15
  assert len(actions.REVERSED) == 3


@pytest.mark.parametrize(('name', 'other'), actions.REVERSED.items())
def test_pairs_differ_in_the_direction_of_time_alone(name, other):
  backwards, backward_joints = _perform(name, seed=5)
  forwards, forward_joints = _perform(other, seed=5)
  for a, b in zip(backward_joints, forward_joints, strict=True):
    np.testing.assert_array_equal(a, b[::-1])
    assert np.abs(a - b).max() > 0.2  # they do differ
  for a, b in zip(backwards.props, forwards.props, strict=True):
    np.testing.assert_array_equal(a.center, b.center[::-1])


@pytest.mark.parametrize('name', ['shake_hands', 'high_five'])
def test_hands_meet(name):
  for seed in range(6):
    _, (first, second) = _perform(name, seed)
    gap = _joint(first, 'right_hand') - _joint(second, 'right_hand')
    assert np.linalg.norm(gap, axis=-1).min() < 0.03, seed


def test_blows_land():
  for seed in range(6):
    stage, (first, second) = _perform('punch', seed)
    head, radius = _joint(second, 'head'), stage.performers[1].body.head
    fists = [_joint(first, f'{side}_hand') for side in _SIDES]
    gap = min(np.linalg.norm(fist - head, axis=-1).min() for fist in fists)
    assert gap < radius + 0.12, seed
    _, (first, second) = _perform('kick', seed)
    toes = [_joint(first, f'{side}_toe') for side in _SIDES]
    hip = (_joint(second, 'left_hip') + _joint(second, 'right_hip')) / 2
    gap = min(np.linalg.norm(toe - hip, axis=-1).min() for toe in toes)
    assert gap < 0.4, seed


def test_curve_passes_through_its_key_values():
  times, values = [0.1, 0.4, 0.9], [2.0, -1.0, 5.0]
  phase = np.array([0.0, 0.1, 0.25, 0.4, 0.9, 1.0])
  expected = [2.0, 2.0, 0.5, -1.0, 5.0, 5.0]
  np.testing.assert_allclose(movement.curve(phase, times, values), expected)


def test_durations_span_a_factor_of_three():
  forms = [videos.Video(0, 'train', 'wave', i).form for i in range(60)]
  lengths = [(f.end - f.start) * f.frames / f.fps for f in forms]
  assert max(lengths) / min(lengths) > 2.7
  assert max(lengths[:10]) / min(lengths[:10]) > 2.4
  assert len({f.fps for f in forms}) == 6
  assert all(20 <= f.frames <= 90 for f in forms)
  assert all(f.width % 2 == f.height % 2 == 0 for f in forms)
  assert all(f.start <= 0.12 and f.end >= 0.88 for f in forms)


def test_formats_say_nothing_about_the_class():
  for split, index in itertools.product(videos.SPLITS, range(5)):
    forms = {videos.Video(7, split, n, index).form for n in actions.NAMES}
    assert len(forms) == 1


def test_no_two_videos_share_a_seed():
  every = [
    videos.Video(seed, split, label, index).entropy
    for seed in (0, 1)
    for split in videos.SPLITS
    for label in actions.NAMES
    for index in range(30)
  ]
  drawn = {np.random.default_rng(e).integers(2**62) for e in every}
  assert len(drawn) == len(every) == 2 * 3 * 15 * 30


def test_the_same_seed_paints_the_same_frames():
  video = videos.Video(1, 'val', 'kick', 0)
  first, again = (np.stack(list(video.scene().frames())) for _ in range(2))
  form = video.form
  assert first.shape == (form.frames, form.height, form.width, 3)
  assert first.dtype == np.uint8
  np.testing.assert_array_equal(first, again)
  other = dataclasses.replace(video, seed=2).scene()
  assert next(other.frames()).tobytes() != first[0].tobytes()


def _silhouettes(scene):
  """Yields uint8 frames of the actors in black on white."""
  layers = [
    shapes.Layer(layer.depth, [(p, (0, 0, 0)) for p, _ in layer.shapes])
    for actor in scene._actors
    for layer in actor
  ]
  painting = shapes.Painting(layers)
  for i in range(scene.form.frames):
    image = np.full((scene.form.height, scene.form.width, 3), 255, np.uint8)
    painting.paint(image, i)
    yield image


@pytest.mark.parametrize('name', ['hug', 'jump', 'pick_up', 'part'])
def test_boxes_hold_the_actors(name):
  video = videos.Video(0, 'train', name, 4)
  scene = video.scene()
  boxes = scene.boxes()
  assert boxes.dtype == np.int16
  assert boxes.shape == (video.form.frames, len(scene.joints), 4)
  low, high = boxes[..., :2].min(1), boxes[..., 2:].max(1)
  views = zip(_silhouettes(scene), low, high, strict=True)
  for image, (x0, y0), (x1, y1) in views:
    rows, columns = np.nonzero(image.min(-1) < 255)
    assert x0 <= columns.min() and columns.max() < x1
    assert y0 <= rows.min() and rows.max() < y1
    slack = columns.min() - x0, x1 - 1 - columns.max()
    slack += rows.min() - y0, y1 - 1 - rows.max()
    assert max(slack) <= 3


def test_actors_stay_in_the_middle_square():
  for index, name in enumerate(actions.NAMES):
    video = videos.Video(0, 'train', name, index)
    boxes, form = video.scene().boxes(), video.form
    side = form.height
    left = (form.width - side) / 2
    cut = np.maximum(left - boxes[..., 0], boxes[..., 2] - left - side)
    assert cut.max() < 0.06 * side, name
    tall = boxes[..., 3] - boxes[..., 1]
    assert np.median(tall) > 0.33 * form.height, name


def test_a_capsule_is_the_hull_of_two_circles():
  p, q = np.array([[2.0, 3.0]]), np.array([[8.0, 3.0]])
  (outline,) = shapes.capsule(p, q, 2.0, 1.0)
  to_p = np.linalg.norm(outline - p, axis=-1)
  to_q = np.linalg.norm(outline - q, axis=-1)
  assert (np.isclose(to_p, 2.0) | np.isclose(to_q, 1.0)).all()
  np.testing.assert_allclose(
    [outline[:, 0].min(), outline[:, 0].max()], [0, 9], atol=1e-9
  )
  assert cv2.isContourConvex(outline.astype(np.float32))


def test_clips_csv_tells_what_the_files_hold(made):
  with (made / 'clips.csv').open(newline='') as file:
    rows = list(csv.DictReader(file))
  assert tuple(rows[0]) == prepare.COLUMNS
  assert len(rows) == 15 * 3
  for split, label in itertools.product(videos.SPLITS, actions.NAMES):
    of = [r for r in rows if (r['split'], r['label']) == (split, label)]
    assert len(of) == _COUNTS[split]
  boxes = np.load(made / 'boxes.npz')
  assert set(boxes) == {r['path'] for r in rows}
  for row in rows[::5]:
    with av.open(str(made / row['path'])) as container:
      stream = container.streams.video[0]
      assert stream.codec_context.name == 'h264'
      assert stream.average_rate == int(row['fps'])
      size = int(row['width']), int(row['height'])
      assert (stream.width, stream.height) == size
      frames = sum(1 for _ in container.decode(video=0))
    assert frames == int(row['frames']) == len(boxes[row['path']])
    seconds = int(row['frames']) / int(row['fps'])
    assert float(row['duration']) == pytest.approx(seconds, abs=1e-3)


def test_files_show_what_was_painted(made):
  video = videos.Video(3, 'train', 'hug', 0)
  with av.open(str(made / video.path)) as container:
    decoded = [f.to_ndarray(format='rgb24') for f in container.decode(video=0)]
  painted = list(video.scene().frames())
  error = np.abs(np.stack(decoded).astype(int) - np.stack(painted)).mean()
  assert error < 8


@pytest.mark.slow
def test_workers_change_nothing(tmp_path, made):
  prepare.prepare(tmp_path, _COUNTS, seed=3, num_workers=2)
  digests = _digests(tmp_path)
  assert digests == _digests(made)
  assert len(digests) == 15 * 3 + 3


def test_an_interrupted_run_is_finished_by_the_next(
  tmp_path, two_classes, monkeypatch
):
  whole, broken = tmp_path / 'whole', tmp_path / 'broken'
  prepare.prepare(whole, _COUNTS)
  encode, calls = videos._encode, itertools.count()

  def interrupted(scene, path):
    if next(calls) == 3:
      path.write_bytes(b'half a video')
      raise KeyboardInterrupt
    encode(scene, path)

  monkeypatch.setattr(videos, '_encode', interrupted)
  with pytest.raises(KeyboardInterrupt):
    prepare.prepare(broken, _COUNTS)
  assert not list(broken.glob('*.csv')) + list(broken.glob('*.npz'))
  finished = sorted(broken.rglob('*.mp4'))
  assert len(finished) == 3
  times = [f.stat().st_mtime_ns for f in finished]
  prepare.prepare(broken, _COUNTS)
  assert [f.stat().st_mtime_ns for f in finished] == times
  assert _digests(broken) == _digests(whole)
  monkeypatch.setattr(videos, 'make', None)  # nothing is left to make
  prepare.prepare(broken, _COUNTS)


def test_a_larger_data_set_keeps_the_smaller_one(tmp_path, two_classes):
  prepare.prepare(tmp_path, _COUNTS)
  before = _digests(tmp_path)
  prepare.prepare(tmp_path, _COUNTS | {'test': 2})
  after = _digests(tmp_path)
  assert len(after) == len(before) + 2
  kept = {k: v for k, v in before.items() if k.endswith('.mp4')}
  assert kept.items() <= after.items()


@pytest.mark.parametrize(
  ('counts', 'seed', 'workers', 'message'),
  [
    ({'train': 0}, 0, 0, r'--train \(=0\) must be at least 1'),
    ({'test': -2}, 0, 0, r'--test \(=-2\) must be at least 1'),
    ({}, -1, 0, r'--seed \(=-1\) must be at least 0'),
    ({}, 0, -1, r'--num_workers \(=-1\) must be at least 0'),
  ],
)
def test_numbers_out_of_range(tmp_path, counts, seed, workers, message):
  with pytest.raises(UserError, match=message):
    prepare.prepare(tmp_path / 'out', _COUNTS | counts, seed, workers)
  assert not (tmp_path / 'out').exists()


def test_nothing_of_somebody_else_is_touched(tmp_path, made):
  (tmp_path / 'clips.csv').write_text('mine')
  with pytest.raises(UserError, match='is not empty and holds no stick'):
    prepare.prepare(tmp_path, _COUNTS)
  assert _digests(tmp_path).keys() == {'clips.csv'}
  with pytest.raises(
    UserError, match=r'seed 3 and set actions; asked for are .* seed 4'
  ):
    prepare.prepare(made, _COUNTS, seed=4)
  with pytest.raises(UserError, match='cannot be written to'):
    prepare.prepare(tmp_path / 'clips.csv', _COUNTS)


def test_mistakes_end_with_code_2_and_jax_stays_out(tmp_path, root):
  code = (
    'import sys; from mtnet_jax.datasets.stick_figures import prepare; '
    'assert not {"jax", "tensorflow"} & set(sys.modules); '
    'from mtnet_jax import cli; cli.run(prepare.COMMAND)'
  )
  command = [sys.executable, '-c', code, f'--out={tmp_path}/out', '--train=0']
  done = subprocess.run(command, cwd=root, capture_output=True, text=True)
  assert done.returncode == 2, done.stderr
  assert '--train (=0)' in done.stderr
  assert 'Traceback' not in done.stderr


def test_contact_sheet(made):
  paths = [made / f'{split}/wave/0000.mp4' for split in ('train', 'test')]
  sheet = prepare.contact_sheet.draw({'wave': paths, 'hug': paths}, columns=3)
  assert sheet.shape == (2 * (14 + 96), 2 * 3 * 134, 3)
  assert sheet.std() > 20
