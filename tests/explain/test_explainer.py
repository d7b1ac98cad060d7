"""One clip by every method, what is written of it, and what is refused."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax import preprocessing
from mtnet_jax.commands import explain as explain_command
from mtnet_jax.data.video import VideoReader
from mtnet_jax.errors import UserError
from mtnet_jax.explain import files
from mtnet_jax.explain.explainer import Settings, explain, find_label
from mtnet_jax.explain.explanation import METHODS
from mtnet_jax.explain.recording import record
from mtnet_jax.explain.saliency_tubes import saliency_tube
from mtnet_jax.export import program as program_lib
from mtnet_jax.prediction import Predictor
from tests import command_line
from tests.prediction_runs import write_run

_UNMEASURED = Settings(faithfulness_steps=0)
_SCRIPT = '<script>alert(1)</script>'


pytestmark = pytest.mark.usefixtures('quick_compilation')


@pytest.fixture(scope='module')
def run(blinking_videos, tmp_path_factory):
  """A run with Class Regularisation, one of whose classes has an evil name."""
  workdir = tmp_path_factory.mktemp('run')
  write_run(workdir, blinking_videos, model__class_regularization=True)
  (workdir / 'labels.txt').write_text(f'bright\n{_SCRIPT}\n')
  return workdir


@pytest.fixture(scope='module')
def predictor(run):
  return Predictor(run)


@pytest.fixture(scope='module')
def video(blinking_videos):
  return blinking_videos / 'test/bright/0.mp4'


@pytest.fixture(scope='module')
def found(predictor, video):
  """By every method, measured."""
  settings = Settings(label=_SCRIPT, faithfulness_steps=2)
  return explain(predictor, video, settings)


def test_every_method_and_layer(found):
  layers = {
    method: [t.layer for t in found.tubes if t.method == method]
    for method in METHODS
  }
  stages = ['stage_1', 'stage_2', 'stage_3', 'stage_4']
  block = 'stage_4_block_1'
  assert layers == {
    'saliency_tubes': ['last'],
    'class_feature_pyramids': [
      f'{block}/expand',
      f'{block}/separated',
      f'{block}/project',
      'head',
    ],
    'class_regularization': stages,
    'amplified_kernels': layers['amplified_kernels'],
    'grad_cam': [*stages, 'last'],
  }
  kernels = [name.split('/channel_') for name in layers['amplified_kernels']]
  assert [stage for stage, _ in kernels] == [
    s for s in stages for _ in range(3)
  ]
  assert len({name for name in layers['amplified_kernels']}) == 12
  assert found.title == '0.mp4' and found.label == 1
  assert found.pyramid.label == 1
  for tube in found.tubes:
    assert tube.saliency.shape == found.clip.shape[:3]
    assert 0 <= tube.saliency.min() <= tube.saliency.max() <= 1
    between = tube.layer in (f'{block}/separated', f'{block}/project')
    if between or tube.method == 'amplified_kernels':
      assert tube.faithfulness is None  # ends of the pyramid alone
    else:
      assert tube.faithfulness.shares.tolist() == [0, 0.5, 1]


def test_a_tube_speaks_for_the_class_that_was_asked_for(found):
  for tube in found.tubes:
    if tube.method == 'class_regularization':
      assert tube.class_name in found.class_names
      assert 'whatever is asked' in tube.note
    elif tube.method == 'amplified_kernels':
      assert tube.class_name in found.class_names
    else:
      assert tube.class_name == _SCRIPT


def test_the_saliency_tube_is_that_of_the_last_activations(found, predictor):
  clips = preprocessing.prepare(jnp.asarray(found.clip)[None], predictor.model)
  variables = predictor.variables
  _, endpoints, _ = record(predictor.model, variables, clips)
  params = jax.device_get(variables['params'])
  hidden = np.asarray(endpoints['features'][0]) @ params['linear']['kernel']
  row = params['linear']['kernel'] @ np.where(
    hidden > 0, params['classifier']['kernel'][:, 1], 0
  )
  expected = saliency_tube(
    np.asarray(endpoints['last'][0]), row, found.clip.shape[:3]
  )
  np.testing.assert_allclose(found.tubes[0].saliency, expected, atol=1e-4)


def test_faithfulness_begins_with_the_clip_s_own_probability(found):
  for tube in found.tubes:
    if tube.faithfulness is None:
      continue
    label = found.class_names.index(tube.class_name)
    curves = tube.faithfulness
    own = found.probabilities[label]
    np.testing.assert_allclose(curves.deletion[0], own, atol=1e-6)
    np.testing.assert_allclose(curves.insertion[-1], own, atol=1e-6)


def test_the_predicted_class_unless_another_is_named(predictor, video):
  settings = dataclasses.replace(_UNMEASURED, methods=('saliency_tubes',))
  found = explain(predictor, video, settings)
  assert found.label == found.probabilities.argmax()
  assert [tube.faithfulness for tube in found.tubes] == [None]
  assert found.pyramid is None and not found.node_tubes


def test_what_is_written(found, tmp_path):
  # What an earlier explanation left would look like a part of this one.
  (tmp_path / 'grad_cam-stage_9.mp4').write_text('old')
  (tmp_path / 'grad_cam-notes.txt').write_text('mine')
  path = files.write(found, tmp_path)
  names = {file.name for file in tmp_path.iterdir()}
  for method in METHODS:
    assert {f'{method}.png', f'{method}.gif'} <= names
  assert 'grad_cam-notes.txt' in names
  videos = [name for name in names if name.endswith('.mp4')]
  assert len(videos) == len(found.tubes)
  with VideoReader(tmp_path / 'grad_cam-stage_2.mp4') as reader:
    assert reader.num_frames >= len(found.clip)
  arrays = np.load(tmp_path / 'tubes.npz')
  np.testing.assert_allclose(
    arrays['class_feature_pyramids/head'],
    next(t.saliency for t in found.tubes if t.layer == 'head'),
    atol=1e-3,
  )
  told = json.loads((tmp_path / 'explanation.json').read_text())
  assert told['label'] == _SCRIPT
  assert sum(told['probabilities'].values()) == pytest.approx(1, abs=1e-6)
  assert told['tubes'][0]['faithfulness'] == found.tubes[0].faithfulness.score
  graph = json.loads((tmp_path / 'pyramid.json').read_text())
  assert graph['levels'][0]['layer'] == 'head'
  page = path.read_text()
  assert page.count('<script') == 2  # the data and the program
  linked = set(re.findall(r'"href": "\./([^"]+)"', page))
  assert linked <= names and 'pyramid.json' in linked


# What is refused, and what only looks as if it had to be.


def test_a_label_that_is_not_there_names_the_nearest():
  with pytest.raises(UserError, match=r"no class 'brigt'.*mean 'bright'"):
    find_label('brigt', ('bright', 'dark'))
  with pytest.raises(UserError, match=r'knows: bright, dark\. labels\.txt'):
    find_label('Zzyzx', ('bright', 'dark'))


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'methods': ('gradcam',)}, "Unknown method 'gradcam'; allowed: all, sal"),
    ({'methods': ()}, "Unknown method ''"),
    ({'label': 'drak'}, "no class 'drak'"),
    ({'layers': 'stage_9'}, "no layer 'stage_9'"),
    ({'layers': 0}, 'must be at least 1'),
    ({'mode': 'tree'}, "'tree'.* must be one of"),
    ({'threshold': 0.8}, r'must lie in \[0.5, 0.731\)'),
    ({'at': 99.0}, 'lasts 1.20 s, 99.0 s is not in it'),
  ],
)
def test_settings_that_make_no_sense(predictor, video, change, message):
  with pytest.raises(UserError, match=message):
    explain(predictor, video, dataclasses.replace(_UNMEASURED, **change))


def test_a_network_without_class_regularization(predictor, video):
  plain = _changed(predictor)
  plain.model = predictor.model.clone(class_regularization=False)
  found = explain(plain, video, _UNMEASURED)
  assert {tube.method for tube in found.tubes} == {
    'saliency_tubes',
    'class_feature_pyramids',
    'grad_cam',
  }
  settings = dataclasses.replace(
    _UNMEASURED, methods=('amplified_kernels', 'all')
  )
  with pytest.raises(UserError, match='no Class Regularisation to show'):
    explain(plain, video, settings)


def _changed(predictor):
  """Another predictor with the same model."""
  changed = Predictor.__new__(Predictor)
  changed.__dict__ = dict(predictor.__dict__)
  return changed


def test_weights_that_are_not_finite(predictor, video):
  broken = _changed(predictor)
  broken.variables = jax.tree.map(
    lambda leaf: jnp.full_like(leaf, jnp.nan), predictor.variables
  )
  with pytest.raises(UserError, match=r'not finite.*weights or the clip hold'):
    explain(broken, video, _UNMEASURED)


@pytest.mark.parametrize('level', [0, 128, 255])
def test_a_constant_video(predictor, level):
  video = np.full((12, 40, 56, 3), level, np.uint8)
  settings = Settings(methods=('saliency_tubes', 'grad_cam'), at=0.2)
  found = explain(
    predictor, video, dataclasses.replace(settings, faithfulness_steps=2)
  )
  for tube in found.tubes:
    assert np.isfinite(tube.saliency).all()
    # A blurred gray clip is the same clip: there is nothing to tell.
    np.testing.assert_allclose(tube.faithfulness.score, 0, atol=1e-6)


def test_a_video_shorter_than_a_clip_repeats_its_frames(predictor, tmp_path):
  video = np.random.default_rng(0).integers(0, 256, (3, 40, 56, 3), np.uint8)
  settings = dataclasses.replace(_UNMEASURED, methods=('saliency_tubes',))
  found = explain(predictor, video, settings)
  assert len(found.clip) > 3
  np.testing.assert_array_equal(found.clip[0], found.clip[1])
  files.write(found, tmp_path)  # with frames at the same second


@pytest.mark.slow
def test_an_exported_model_cannot_be_looked_into(predictor, video, tmp_path):
  program_lib.write_export(
    tmp_path / 'export',
    predictor.model,
    predictor.variables,
    predictor.config,
    predictor.class_names,
    step=7,
  )
  with pytest.raises(UserError, match=r'one closed program\. Give the'):
    explain(Predictor(tmp_path), video, _UNMEASURED)


def test_the_command(run, video, tmp_path):
  done = command_line.run(
    explain_command.COMMAND,
    f'--workdir={run}',
    f'--video={video}',
    f'--out={tmp_path}/out',
    '--method=saliency_tubes',
    '--faithfulness_steps=0',
  )
  assert done.code == 0, done.stderr
  assert done.stdout.splitlines() == [f'{tmp_path}/out/report.html']
  assert (tmp_path / 'out/saliency_tubes.png').stat().st_size


def test_a_folder_that_cannot_be_written_is_told_first(tmp_path):
  taken = tmp_path / 'file'
  taken.write_text('')
  flags = '--workdir=none', '--video=none', f'--out={taken}/out'
  done = command_line.run(explain_command.COMMAND, *flags)
  assert done.code == 2
  assert f'{taken}/out cannot be written' in done.stderr
  assert len(done.stderr.splitlines()) == 1
