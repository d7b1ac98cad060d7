"""The sets of the stick figures: `idle`, `speed`, and that `actions` stays."""

import csv
import dataclasses
import itertools
import json

import numpy as np
import pytest

from mtnet_jax.datasets.stick_figures import (
  actions,
  formats,
  idle,
  movement,
  prepare,
  scene,
  sets,
  skeleton,
  speed,
  videos,
)
from mtnet_jax.errors import UserError

_COUNTS = {'train': 1, 'val': 1, 'test': 1}
_CLASSES = [('idle', n) for n in idle.NAMES] + [
  ('speed', n) for n in speed.NAMES
]


def _solve(stage):
  return [skeleton.solve(p.body, p.motion) for p in stage.performers]


def _idle(name, seed=0):
  """Joints of an action that lasts from second 1 to second 2 of 3."""
  seconds = np.linspace(0, 3, 91)
  phase = np.clip(seconds - 1, 0, 1)
  stage = idle.perform(name, phase, seconds, np.random.default_rng(seed))
  return stage, _solve(stage)


def _speed(name, seconds, seed=0):
  rng = np.random.default_rng(seed)
  return _solve(speed.perform(name, np.zeros_like(seconds), seconds, rng))


def _joint(joints, name):
  return joints[:, skeleton.INDEX[name]]


@pytest.fixture
def motionless(monkeypatch):
  """Nobody sways: what is left of the movement is that of the class."""
  monkeypatch.setattr(movement, 'sway', lambda _, seconds, __: 0 * seconds)


_PAINTED = {  # means of red, green and blue, and the sum of the boxes
  'hug': ((155.612, 174.553, 164.020), 12222),
  'jump': ((164.825, 146.449, 143.863), 6295),
  'part': ((126.900, 152.742, 136.633), 11097),
  'pick_up': ((97.675, 107.050, 131.275), 5636),
  'wave': ((122.621, 111.757, 140.069), 7489),
}


@pytest.mark.parametrize('name', _PAINTED)
def test_the_default_set_is_painted_as_ever(name):
  colors, boxes = _PAINTED[name]
  scene = videos.Video(0, 'train', name, 0).scene()
  frames = np.stack(list(scene.frames()))
  assert frames.shape == (33, 80, 106, 3)
  # Another processor may round otherwise; another drawing is far away.
  np.testing.assert_allclose(frames.mean((0, 1, 2)), colors, atol=0.01)
  assert scene.boxes().sum(dtype=int) == pytest.approx(boxes, abs=4)
  assert prepare.VERSION == 1


def test_classes():
  assert len(idle.NAMES) == 11
  assert len(speed.NAMES) == 12 and len(speed.PAIRS) == 6
  assert set(itertools.chain(*speed.PAIRS)) == set(speed.NAMES)
  assert set(idle.NAMES) - set(actions.NAMES) == {'bow', 'squat', 'stretch'}
  for figures in sets.SETS.values():
    assert list(figures.names) == sorted(set(figures.names))


def test_idle_people_look_the_same_in_every_class():
  form = formats.Format(64, 48, 6, 24, 0.3, 0.6)
  moving = (form.phase > 0) & (form.phase < 1)
  assert 5 <= moving.sum() <= 8
  shown = {}
  for name in idle.NAMES:
    rng = np.random.default_rng(5)
    filmed = scene.Scene(name, form, rng, idle.perform)
    shown[name] = np.stack(list(filmed.frames())).astype(int)
  for a, b in itertools.combinations(shown.values(), 2):
    np.testing.assert_array_equal(a[~moving], b[~moving])
    assert np.abs(a[moving] - b[moving]).max() > 50


def test_the_speed_changes_no_pose_of_an_idle_action(motionless):
  seconds = np.arange(121) / 30
  for name in idle.NAMES:
    slow, fast = (
      _solve(
        idle.perform(
          name,
          np.clip((seconds - 1) / t, 0, 1),
          seconds,
          np.random.default_rng(3),
        )
      )
      for t in (2.0, 0.5)
    )
    for a, b in zip(slow, fast, strict=True):
      np.testing.assert_allclose(a[30:91:4], b[30:46], atol=1e-9)


def test_idle_formats():
  forms = [videos.Video(0, 'train', 'bow', i, 'idle').form for i in range(80)]
  last = np.array([(f.frames - 1) / f.fps for f in forms])
  start, end = (
    np.array([getattr(f, name) for f in forms]) for name in ('start', 'end')
  )
  lengths = (end - start) * last
  assert all(f.frames == 4 * f.fps for f in forms)
  assert 0.5 <= lengths.min() < 0.53 and 1.9 < lengths.max() <= 2.0
  assert start.min() >= 0 and end.max() <= 1
  room = start * last / (last - lengths)  # where it begins, of where it may
  assert np.histogram(room, 4, (0, 1))[0].min() >= 10
  assert len({f.fps for f in forms}) == 6


@pytest.mark.parametrize('figures', ['idle', 'speed'])
def test_formats_say_nothing_about_the_class(figures):
  for split, index in itertools.product(videos.SPLITS, range(4)):
    names = sets.SETS[figures].names
    forms = {videos.Video(7, split, n, index, figures).form for n in names}
    assert len(forms) == 1


@pytest.mark.parametrize(('fast', 'slow'), speed.PAIRS)
def test_pairs_visit_the_same_poses(fast, slow, motionless):
  seconds = np.arange(90) / 30
  for seed in range(3):
    quick = _speed(fast, seconds, seed)
    same = _speed(slow, 3 * seconds, seed)
    other = _speed(slow, seconds, seed)
    for a, b, c in zip(quick, same, other, strict=True):
      np.testing.assert_allclose(a, b, atol=1e-9)
      # Other times, but no other poses: each is near one of a slow video's.
      gaps = np.abs(a[:, None] - c[None]).max((2, 3)).min(1)
      assert gaps.max() < 0.12
    assert max(np.ptp(a, axis=0).max() for a in quick) > 0.1


def _period(joints):
  """Seconds after which a movement, sampled at 200 Hz, repeats itself."""
  track = joints.reshape(len(joints), -1)
  track = track[:, np.ptp(track, axis=0).argmax()]  # what moves most
  for lag in range(60, 500):
    change = np.abs(track[lag:] - track[:-lag]).mean()
    if change < 0.02 * np.ptp(track):
      return lag / 200
  raise AssertionError('It does not repeat itself.')


@pytest.mark.parametrize('name', speed.NAMES)
def test_speeds_of_a_pair_do_not_overlap(name, motionless):
  seconds = np.arange(1600) / 200
  low, high = (0.5, 0.75) if name.startswith('fast') else (1.5, 2.25)
  periods = [_period(_speed(name, seconds, seed)[0]) for seed in range(5)]
  assert 0.97 * low < min(periods) and max(periods) < 1.01 * high
  assert max(periods) > 1.1 * min(periods)


def test_speeds_do_not_overlap_in_frames_either():
  forms = [
    videos.Video(0, 'test', 'slow_bow', i, 'speed').form for i in range(60)
  ]
  rates = {f.fps for f in forms}
  assert len(rates) == 4
  assert 0.75 * max(rates) < 0.8 * 1.5 * min(rates)
  for form in forms:
    assert form.frames == 3 * form.fps > 2.25 * form.fps


@pytest.mark.parametrize(('figures', 'name'), _CLASSES)
def test_bodies_stay_possible(figures, name):
  for seed in range(3):
    if figures == 'idle':
      _, people = _idle(name, seed)
    else:
      people = _speed(name, np.arange(90) / 30, seed)
    for joints in people:
      assert np.isfinite(joints).all()
      for side in ('left', 'right'):
        ankle = _joint(joints, f'{side}_ankle')
        assert ankle[:, 1].min() > 0.045 * 1.5 - 1e-9  # of the smallest body
        for limb in (('shoulder', 'elbow', 'hand'), ('hip', 'knee', 'ankle')):
          a, b, c = (_joint(joints, f'{side}_{part}') for part in limb)
          cos = ((a - b) * (c - b)).sum(-1)
          cos /= np.linalg.norm(a - b, axis=-1) * np.linalg.norm(c - b, axis=-1)
          angle = np.degrees(np.arccos(np.clip(cos, -1, 1)))
          assert angle.min() > 34 and angle.max() < 177


def _nearest(a, b):
  return np.linalg.norm(a - b, axis=-1).min()


def test_idle_people_touch_each_other():
  for seed in range(6):
    for name in ('shake_hands', 'high_five'):
      _, (first, second) = _idle(name, seed)
      hands = (_joint(p, 'right_hand') for p in (first, second))
      assert _nearest(*hands) < 0.03, (name, seed)
    stage, (first, second) = _idle('punch', seed)
    fists = [_joint(first, f'{side}_hand') for side in ('left', 'right')]
    gap = min(_nearest(fist, _joint(second, 'head')) for fist in fists)
    assert gap < stage.performers[1].body.head + 0.12, seed
    _, (first, second) = _idle('kick', seed)
    toes = [_joint(first, f'{side}_toe') for side in ('left', 'right')]
    assert min(_nearest(t, _joint(second, 'pelvis')) for t in toes) < 0.4, seed


@pytest.mark.parametrize(('figures', 'name'), _CLASSES)
def test_actors_stay_in_the_middle_square(figures, name):
  for index in range(2):
    video = videos.Video(1, 'val', name, index, figures)
    filmed, form = video.scene(), video.form
    boxes, side = filmed.boxes(), form.height
    left = (form.width - side) / 2
    cut = np.maximum(left - boxes[..., 0], boxes[..., 2] - left - side)
    assert cut.max() < 0.06 * side
    assert boxes[..., 1].min() > 0 and boxes[..., 3].max() < form.height
    assert np.median(boxes[..., 3] - boxes[..., 1]) > 0.33 * form.height
    assert boxes.shape[1] == (2 if figures == 'idle' else len(filmed.joints))


def test_no_two_videos_of_any_set_share_a_seed():
  every = []
  for figures, split in itertools.product(sets.SETS, videos.SPLITS):
    for label in sets.SETS[figures].names:
      for index in range(10):
        every.append(videos.Video(0, split, label, index, figures).entropy)
  generators = [np.random.default_rng(entropy) for entropy in every]
  # What a scene draws from are the four children of each.
  drawn = {g.integers(2**62) for r in generators for g in (r, *r.spawn(4))}
  assert len(drawn) == 5 * len(every) == 5 * 3 * 10 * (15 + 11 + 12)


@pytest.fixture
def few_classes(monkeypatch):
  for figures, names in (
    ('idle', ('bow', 'kick')),
    ('speed', ('fast_walk', 'slow_walk')),
  ):
    few = dataclasses.replace(sets.SETS[figures], names=names)
    monkeypatch.setitem(sets.SETS, figures, few)


def _rows(path):
  with path.open(newline='') as file:
    return list(csv.DictReader(file))


def test_files_of_idle_say_when_the_action_is(tmp_path, few_classes):
  prepare.prepare(tmp_path, _COUNTS | {'train': 3}, figures='idle')
  clips, when = _rows(tmp_path / 'clips.csv'), _rows(tmp_path / 'actions.csv')
  assert [r['path'] for r in clips] == [r['path'] for r in when]
  assert len(when) == 2 * 5
  boxes = np.load(tmp_path / 'boxes.npz')
  assert set(boxes) == {r['path'] for r in when}
  for clip, row in zip(clips, when, strict=True):
    start, end = int(row['start']), int(row['end'])
    assert 0 <= start < end <= int(clip['frames'])
    assert 0.4 < (end - start) / int(clip['fps']) < 2.05
    split, label, name = row['path'].split('/')
    video = videos.Video(0, split, label, int(name[:4]), 'idle')
    joints = np.stack(video.scene().joints)  # people t joints 3
    assert len(boxes[row['path']]) == joints.shape[1]
    steps = np.linalg.norm(np.diff(joints, axis=1), axis=-1).max((0, 2))
    speeds = steps * int(clip['fps'])  # m/s, between frames i and i + 1
    moves = np.zeros(len(speeds), bool)
    moves[max(start - 1, 0) : end] = True
    assert speeds[~moves].max() < 0.3
    assert speeds[moves].max() > 0.8


def test_a_directory_holds_one_set(tmp_path, few_classes):
  with pytest.raises(UserError, match=r'--set \(=run\) must be one of actions'):
    prepare.prepare(tmp_path / 'out', _COUNTS, figures='run')
  assert not (tmp_path / 'out').exists()
  prepare.prepare(tmp_path, _COUNTS, figures='speed')
  settings = json.loads((tmp_path / 'settings.json').read_text())
  assert settings == {'version': 1, 'seed': 0, 'set': 'speed', **_COUNTS}
  assert not (tmp_path / 'actions.csv').exists()
  with pytest.raises(UserError, match=r'set speed; asked for are .* set idle'):
    prepare.prepare(tmp_path, _COUNTS, figures='idle')
  with pytest.raises(UserError, match=r'set speed; asked for are .* actions'):
    prepare.prepare(tmp_path, _COUNTS)
