"""Which frames are kept, against the definition; pictures of it."""

import functools
import shutil

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax import models
from mtnet_jax.analysis import kept_frames
from mtnet_jax.data import pipeline
from mtnet_jax.datasets.stick_figures import actions, formats, scene
from mtnet_jax.errors import UserError
from tests import command_line
from tests.arrays import random_variables
from tests.prediction_runs import write_run
from tests.tiny_runs import tiny_config

pytestmark = pytest.mark.usefixtures('quick_compilation')


def _clips(n=2, t=6, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (n, t, 16, 16, 3), np.uint8)


@pytest.fixture(scope='module')
def network():
  model = models.build('mtnet_xs', 3, recurrence=False)
  clips = np.zeros((1, 2, 16, 16, 3), np.float32)
  return model, random_variables(model, clips)


def _lowest_half(pooled):
  """The frames with the lowest triplet scores (5.6–5.7), of one clip."""
  v = pooled.mean((1, 2)).astype(np.float64)
  v /= np.linalg.norm(v, axis=1, keepdims=True)
  cos = [v[i] @ v[i + 1] for i in range(len(v) - 1)]
  scores = [a + b for a, b in zip([cos[0], *cos], [*cos, cos[-1]], strict=True)]
  return set(np.argsort(scores, kind='stable')[: len(v) // 2].tolist())


@pytest.mark.slow
def test_masks_are_those_of_the_layers(network):
  model, variables = network
  clips = _clips()
  masks = kept_frames.kept_frames(model, variables, clips)
  assert list(masks) == [
    f'stage_{i}_block_1/{name}'
    for i in (1, 2, 3, 4)
    for name in ('expand', 'separated', 'project')
  ]
  for mask in masks.values():
    assert mask.shape == (2, 6) and (mask.sum(axis=1) == 3).all()
  # The first layer reads the stem.
  normalized = (clips / np.float32(255) - 0.45) / 0.225
  _, endpoints = jax.jit(model.apply)(variables, normalized)
  stem = np.asarray(endpoints['stem'], np.float64)  # n t h w c
  windows = stem.reshape(2, 6, 4, 2, 4, 2, -1)
  weights = np.exp(windows)
  pooled = (weights * windows).sum((3, 5)) / weights.sum((3, 5))
  for clip, mask in zip(pooled, masks['stage_1_block_1/expand'], strict=True):
    assert set(np.flatnonzero(mask).tolist()) == _lowest_half(clip)


def test_layers_are_sorted_by_depth():
  names = [
    'stage_2_block_10/expand',
    'stage_2_block_9/project',
    'stage_10_block_1/expand',
    'stage_2_block_9/separated',
  ]
  assert sorted(names, key=kept_frames._depth) == [
    'stage_2_block_9/separated',
    'stage_2_block_9/project',
    'stage_2_block_10/expand',
    'stage_10_block_1/expand',
  ]


def test_a_network_without_a_selection():
  model = models.build('mtnet_xs', 3, local_ratio=1.0, recurrence=False)
  variables = random_variables(model, np.zeros((1, 2, 16, 16, 3), np.float32))
  with pytest.raises(UserError, match='selects no frames'):
    kept_frames.kept_frames(model, variables, _clips())


def test_motion_by_hand():
  clips = np.zeros((1, 4, 2, 2, 3), np.uint8)
  clips[0, 2] = 40  # steps of 0, 40, 0 and, from 40 to 0 back again, 40
  clips[0, 3] = 40
  np.testing.assert_allclose(kept_frames.motion(clips), [[0, 40, 40, 0]])
  clips[0, 3] = 0
  np.testing.assert_allclose(kept_frames.motion(clips), [[0, 40, 80, 80]])


def test_relative_motion_by_hand():
  clips = np.zeros((1, 4, 2, 2, 3), np.uint8)
  clips[0, 2:] = 40  # motion 0, 40, 40, 0: a mean of 20
  masks = {
    'still': np.array([[True, False, False, True]]),
    'moving': np.array([[False, True, True, False]]),
    'half': np.array([[True, True, False, False]]),
  }
  assert kept_frames.relative_motion(masks, clips) == {
    'still': 0, 'moving': 2, 'half': 1
  }  # fmt: skip
  # Nothing moves: no share is infinite.
  assert kept_frames.relative_motion(masks, 0 * clips)['half'] == 0


def test_the_command(blinking_videos, tmp_path):
  changes = {'model__local_ratio': 0.5}
  write_run(tmp_path / 'run', blinking_videos, **changes)
  run = functools.partial(
    command_line.run,
    kept_frames.COMMAND,
    f'--workdir={tmp_path / "run"}',
  )
  done = run(f'--out={tmp_path}/some.png')
  assert done.code == 0, done.stderr
  lines = done.stdout.splitlines()
  assert len(lines) == 12
  assert lines[0].startswith('stage_1_block_1/expand: motion of kept frames')
  done = run(f'--out={tmp_path}/one.png', '--ids=test/dark/1.mp4')
  assert done.code == 0, done.stderr
  some, one = (cv2.imread(f'{tmp_path}/{n}.png') for n in ('some', 'one'))
  assert some.shape[0] > 3 * one.shape[0] and some.shape[1] == one.shape[1]
  # Green: the kept half of the grid.
  blue, green, red = (one[..., i].astype(int) for i in range(3))
  assert ((green > red + 30) & (green > blue + 30)).mean() > 0.05
  done = run(f'--out={tmp_path}/no.png', '--ids=test/dark/1.mp4,dark/99.mp4')
  assert done.code == 2 and 'video dark/99.mp4.' in done.stderr
  done = run(f'--out={tmp_path}/no.png', '--config.data.num_frames=8')
  assert done.code == 2
  assert 'data.num_frames is 4 in the run, 8 was given' in done.stderr
  (tmp_path / 'folder.png').mkdir()
  done = run(f'--out={tmp_path}/folder.png')
  assert done.code == 2 and 'folder.png is a folder' in done.stderr


def test_broken_videos_are_named_and_left_out(
  network, blinking_videos, tmp_path, caplog
):
  videos = shutil.copytree(blinking_videos, tmp_path / 'v')
  (videos / 'test/dark/3.mp4').write_text('I am no video')
  config = tiny_config(videos, eval__clips_per_step=1)  # a batch of its own
  config.eval.num_clips = config.eval.num_crops = 1
  dataset = pipeline.build_evaluation(config, 'test')
  shown, ratios = kept_frames._select_all(dataset, *network, [])
  assert 'Left out: test/dark/3.mp4' in caplog.text
  assert len(shown) == 4 and all(np.isfinite(r) for r in ratios.values())


def test_only_mtnets_can_be_shown():
  model = models.build('mt_r3d_50', 3)
  with pytest.raises(UserError, match='Only an MTNet'):
    kept_frames.kept_frames(model, {}, _clips())


@pytest.mark.check
def test_bfloat16_keeps_the_frames_that_float32_keeps():
  """All but a few; each that is another moves what comes after it."""
  clips = []
  for seed, label in enumerate(actions.NAMES):
    form = formats.Format(64, 48, 12, 16, 0.1, 0.9)
    filmed = scene.Scene(label, form, np.random.default_rng(seed))
    clips.append(np.stack([*filmed.frames()])[::2, :, 8:56])
  clips = np.stack(clips)
  wide = models.build('mtnet_xs', len(actions.NAMES))
  variables = random_variables(
    wide, np.zeros((1, *clips.shape[1:]), np.float32)
  )
  expected = kept_frames.kept_frames(wide, variables, clips)
  half = wide.copy(dtype=jnp.bfloat16)
  found = kept_frames.kept_frames(half, variables, clips)
  flipped = {name: expected[name] & ~found[name] for name in expected}
  # Measured: 1 of 100.
  shares = [mask.sum() / expected[name].sum() for name, mask in flipped.items()]
  assert np.mean(shares) < 0.03, dict(zip(flipped, shares, strict=True))
