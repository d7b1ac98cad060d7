"""An exported model: the same numbers, and files that are refused."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from configs import base
from mtnet_jax import export
from mtnet_jax.errors import UserError

_NAMES = ('hug', '<b>', 'é')


class _Model(nn.Module):
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x, *, train):
    assert not train
    logits = nn.Dense(3, name='classifier')(x.mean(axis=(1, 2, 3)))
    return logits, {'early_predictions': {}}


def _config():
  config = base.get_config()
  config.data.update(num_frames=2, frame_stride=3, input_size=9)
  config.eval.update(crop_size=6, input_size=4)  # larger than in training
  return config


@pytest.fixture(scope='module')
def weights():
  rng = np.random.default_rng(0)
  kernel = rng.normal(size=(3, 3)).astype(np.float32)
  return kernel, rng.normal(size=3).astype(np.float32)


@pytest.fixture(scope='module')
def files(weights, tmp_path_factory):
  directory = tmp_path_factory.mktemp('export') / 'new'
  kernel, bias = map(jnp.asarray, weights)
  variables = {'params': {'classifier': {'kernel': kernel, 'bias': bias}}}
  export.write(directory, _Model(), variables, _config(), _NAMES, step=12)
  return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture
def directory(files, tmp_path):
  """A copy to damage."""
  for name, content in files.items():
    (tmp_path / name).write_bytes(content)
  return tmp_path


def test_probabilities_of_any_number_of_clips(directory, weights):
  run, _ = export.load(directory)
  rng = np.random.default_rng(1)
  for count in (1, 5):
    clips = rng.integers(0, 256, (count, 2, 4, 4, 3), np.uint8)
    x = (clips.astype(np.float64) / 255 - 0.45) / 0.225
    logits = x.mean(axis=(1, 2, 3)) @ weights[0] + weights[1]
    shares = np.exp(logits)
    shares /= shares.sum(axis=1, keepdims=True)
    got = run(clips)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, shares, atol=1e-6)


def test_what_the_description_says(directory):
  _, metadata = export.load(directory)
  assert metadata['class_names'] == list(_NAMES)
  assert (metadata['version'], metadata['step']) == (1, 12)
  assert metadata['program']['input'] == ['b', 2, 4, 4, 3]
  assert metadata['program']['output'] == ['b', 3]
  assert metadata['data'] == {
    'num_frames': 2,
    'frame_stride': 3,
    'short_videos': 'repeat',
  }
  assert metadata['eval'] == {
    'num_clips': 10,
    'num_crops': 3,
    'crop_size': 6,
    'input_size': 4,
    'clips_per_step': 30,
  }


def test_the_program_is_for_every_platform(directory):
  contents = (directory / 'model.stablehlo').read_bytes()
  exported = jax.export.deserialize(bytearray(contents))
  assert exported.platforms == ('cpu', 'cuda', 'tpu')
  assert [str(aval.shape) for aval in exported.in_avals] == ['(b, 2, 4, 4, 3)']


def test_a_newer_version(directory):
  path = directory / 'model.json'
  metadata = json.loads(path.read_text())
  path.write_text(json.dumps({**metadata, 'version': 2, 'data': 'elsewhere'}))
  with pytest.raises(UserError, match='has version 2, this mtnet_jax reads up'):
    export.load(directory)


@pytest.mark.parametrize(
  'text',
  [
    '{"format": "mtnet',
    '[]',
    '{}',
    '{"format": "onnx", "version": 1}',
    '{"format": "mtnet_jax", "version": "1"}',
    '{"format": "mtnet_jax", "version": true}',
    '{"format": "mtnet_jax", "version": 0}',
    '{"format": "mtnet_jax", "version": 1, "class_names": ["a"]}',
    '{"format": "mtnet_jax", "version": 1, "class_names": "a"}',
  ],
)
def test_a_description_that_is_none(directory, text):
  (directory / 'model.json').write_text(text)
  with pytest.raises(UserError, match='does not describe an exported model'):
    export.load(directory)


@pytest.mark.parametrize(
  ('keys', 'value', 'message'),
  [
    (
      ['class_names'],
      ['a', 'b'],
      r'clips \(2, 4, 4, 3\) and 2 classes, the pro',
    ),
    (['class_names'], 'abc', 'class_names are not a list'),
    (['class_names'], ['a', 1, 'b'], 'class_names are not a list'),
    (['class_names'], ['a', 'b', 'a'], "json names the class 'a' twice: rem"),
    (['class_names'], ['a', 'b', ''], "names the class ''"),
    (['data', 'num_frames'], 3, r'of clips \(3, 4, 4, 3\)'),
    (['eval', 'input_size'], '4', r"of clips \(2, '4', '4', 3\)"),
    (['eval'], None, 'does not describe an exported model'),
    (['program'], {}, "does not describe .*'sha256'"),
    (['program'], [], 'does not describe an exported model'),
  ],
)
def test_a_description_of_another_program(directory, keys, value, message):
  path = directory / 'model.json'
  metadata = json.loads(path.read_text())
  place = metadata
  for key in keys[:-1]:
    place = place[key]
  place[keys[-1]] = value
  path.write_text(json.dumps(metadata))
  with pytest.raises(UserError, match=message):
    export.load(directory)


def test_files_that_are_damaged_or_missing(directory):
  path = directory / 'model.stablehlo'
  contents = path.read_bytes()
  for damaged in (b'', contents[:-1], contents[:100], b'x' + contents[1:]):
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r'is not the program that model\.json'):
      export.load(directory)
  path.unlink()
  with pytest.raises(UserError, match=r'stablehlo cannot be read: No such'):
    export.load(directory)
  (directory / 'model.json').unlink()
  with pytest.raises(UserError, match=r'model\.json cannot be read: No such'):
    export.load(directory)


def test_a_program_that_jax_does_not_know(directory):
  """Whole, but of another JAX than this one reads."""
  contents = b'a format of the far future' * 8
  (directory / 'model.stablehlo').write_bytes(contents)
  path = directory / 'model.json'
  metadata = json.loads(path.read_text())
  metadata['program']['sha256'] = hashlib.sha256(contents).hexdigest()
  path.write_text(json.dumps(metadata))
  with pytest.raises(UserError, match='cannot be loaded by JAX'):
    export.load(directory)


def test_a_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(UserError, match='cannot be written'):
    export.write(
      tmp_path / 'file/export', _Model(), {}, _config(), _NAMES, step=1
    )
