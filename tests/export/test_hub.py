"""Models in the form of Hugging Face's hub: written, read, and damaged."""

import json
import re
import shutil
import sys
import types

import jax
import numpy as np
import pytest
import safetensors.numpy
import yaml

import mtnet_jax
from mtnet_jax.commands import export as export_command
from mtnet_jax.commands import predict as predict_command
from mtnet_jax.errors import UserError
from tests import command_line
from tests.checkpoint_files import stored_leaves
from tests.prediction_runs import STEP, write_run

pytestmark = pytest.mark.usefixtures('quick_compilation')

_NAMES = ['a.b: "c" #1 \\', '<b>*é🏃_|`--- {x}']
_THREE = {'a': 0, 'b': 1, 'c': 2}
_FILES = [
  'README.md', 'config.json', 'model.safetensors', 'preprocessor_config.json',
]  # fmt: skip


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A workdir whose data and classes have odd names."""
  workdir = tmp_path_factory.mktemp('run')
  write_run(workdir, '/home/me/my: "data"', eval__num_crops=1)
  (workdir / 'labels.txt').write_text('\n'.join(_NAMES) + '\n', 'utf-8')
  return workdir


@pytest.fixture(scope='module')
def folder(run, tmp_path_factory):
  """The folder that the command has written."""
  out = tmp_path_factory.mktemp('out') / 'hub'
  done = _export(run, out)
  assert done.code == 0, done.stderr
  for name in _FILES:
    assert f'{out / name}  ' in done.stdout
  return out


@pytest.fixture
def copy(folder, tmp_path):
  """A copy that a test may damage."""
  return shutil.copytree(folder, tmp_path / 'copy')


def _export(run, out, *flags):
  flags = f'--workdir={run}', f'--out={out}', '--format=hub', *flags
  return command_line.run(export_command.COMMAND, *flags)


def _card(folder):
  """The metadata and the text of a card."""
  parts = (folder / 'README.md').read_text('utf-8').split('---\n', 2)
  assert parts[0] == ''
  return yaml.safe_load(parts[1]), parts[2]


def test_what_config_json_says(folder):
  assert sorted(path.name for path in folder.iterdir()) == _FILES
  config = json.loads((folder / 'config.json').read_text())
  assert config['model_type'] == config['library_name'] == 'mtnet_jax'
  assert config['architectures'] == ['MTNet'] and config['step'] == STEP
  assert config['id2label'] == {'0': _NAMES[0], '1': _NAMES[1]}
  assert config['label2id'] == {_NAMES[0]: 0, _NAMES[1]: 1}
  assert config['model']['name'] == 'mtnet_xs'
  assert config['eval']['num_clips'] == 2
  # A folder's name, and not where it lies.
  assert config['data']['dir'] == 'my: "data"'
  assert b'/home' not in b''.join(p.read_bytes() for p in folder.iterdir())


def test_what_preprocessor_config_json_says(folder):
  text = (folder / 'preprocessor_config.json').read_text()
  assert json.loads(text) == {
    'do_resize': True,
    'size': {'shortest_edge': 32},
    'do_center_crop': True,
    'crop_size': {'height': 32, 'width': 32},
    'input_size': {'height': 32, 'width': 32},
    'num_frames': 4,
    'frame_stride': 2,
    'sampling': 'clip',
    'num_clips': 2,
    'num_crops': 1,
    'do_rescale': True,
    'rescale_factor': 0.00392156862745098,
    'do_normalize': True,
    'image_mean': [0.45, 0.45, 0.45],
    'image_std': [0.225, 0.225, 0.225],
  }


def test_a_folder_from_before_sampling(copy):
  for name in ('config.json', 'preprocessor_config.json'):
    content = json.loads((copy / name).read_text())
    del content.get('data', content)['sampling']
    (copy / name).write_text(json.dumps(content))
  assert mtnet_jax.load(copy).config.data.sampling == 'clip'


def test_frames_of_the_whole_video_are_told(run, tmp_path):
  shutil.copytree(run, tmp_path / 'run')
  path = tmp_path / 'run/config.json'
  config = json.loads(path.read_text())
  config['data']['sampling'] = 'uniform'
  path.write_text(json.dumps(config))
  done = _export(tmp_path / 'run', tmp_path / 'hub')
  assert done.code == 0, done.stderr
  text = (tmp_path / 'hub/preprocessor_config.json').read_text()
  assert json.loads(text)['sampling'] == 'uniform'
  _, card = _card(tmp_path / 'hub')
  assert 'A clip is 4 frames spread over the whole video, 32 × 32' in card
  assert mtnet_jax.load(tmp_path / 'hub').config.data.sampling == 'uniform'


def test_the_weights_are_those_of_the_checkpoint(folder, run):
  found = safetensors.numpy.load_file(folder / 'model.safetensors')
  stored = {
    '/'.join(re.findall(r"'(\w+)'", name)): leaf
    for name, leaf in stored_leaves(run, STEP).items()
    if name.startswith('variables')
  }
  assert found.keys() == stored.keys()
  for name, leaf in stored.items():
    np.testing.assert_array_equal(found[name], leaf, err_msg=name)


def test_the_card_of_a_model_that_was_not_evaluated(folder):
  metadata, text = _card(folder)
  assert metadata == {
    'license': 'unknown',
    'library_name': 'mtnet_jax',
    'pipeline_tag': 'video-classification',
    'tags': [
      'video-classification', 'action-recognition', 'jax', 'flax', 'mtnet_xs',
    ],
  }  # fmt: skip
  assert 'This model was not evaluated.' in text
  assert '# mtnet_xs trained on my\\: \\"data\\"\n' in text
  # Each sign that Markdown could read is escaped.
  assert '* `0` a\\.b\\: \\"c\\" \\#1 \\\\\n' in text
  assert '* `1` \\<b\\>\\*é🏃\\_\\|\\`\\-\\-\\- \\{x\\}\n' in text
  assert "mtnet_jax.load('OWNER/NAME')" in text


def test_load_reads_the_same_model(folder, run, blinking_videos):
  video = blinking_videos / 'test/bright/0.mp4'
  expected, found = mtnet_jax.load(run), mtnet_jax.load(folder)
  assert found.class_names == expected.class_names == tuple(_NAMES)
  assert found.step == STEP and found.source == f'the hub folder {folder}'
  assert found.model == expected.model
  jax.tree.map(
    np.testing.assert_array_equal, found.variables, expected.variables
  )
  for section in ('model', 'eval'):
    assert found.config[section] == expected.config[section]
  np.testing.assert_array_equal(
    found(video).probabilities, expected(video).probabilities
  )
  assert found.features(found.views(video)).shape == (2, 96)


def test_commands_take_the_folder(folder, blinking_videos, tmp_path):
  done = command_line.run(
    predict_command.COMMAND,
    f'--workdir={folder}',
    '--config.eval.num_clips=1',
    '--json',
    blinking_videos / 'test/dark/0.mp4',
  )
  assert done.code == 0, done.stderr
  assert set(json.loads(done.stdout)['probabilities']) == set(_NAMES)
  again = _export(folder, tmp_path / 'again', '--license=MIT')
  assert again.code == 0, again.stderr
  for name in set(_FILES) - {'README.md'}:
    written = (tmp_path / 'again' / name).read_bytes()
    assert written == (folder / name).read_bytes()
  assert _card(tmp_path / 'again')[0]['license'] == 'mit'


def test_the_card_of_an_evaluated_run(run, tmp_path):
  workdir = shutil.copytree(run, tmp_path / 'run')
  (workdir / 'evaluation').mkdir()
  summary = {'top1': 0.625, 'top5': 1.0, 'early_top1': {}, 'videos': 8}
  path = workdir / 'evaluation/summary.json'
  path.write_text(json.dumps(summary | {'not_scored': {'x.mp4': 'cut'}}))
  done = _export(workdir, tmp_path / 'hub', '--license=CC-BY-NC-4.0')
  assert done.code == 0, done.stderr
  metadata, text = _card(tmp_path / 'hub')
  assert metadata['license'] == 'cc-by-nc-4.0'
  assert metadata['metrics'] == ['accuracy']
  (model,) = metadata['model-index']
  (result,) = model['results']
  assert model['name'] == 'mtnet_xs'
  assert result['task'] == {'type': 'video-classification'}
  assert result['dataset'] == {
    'type': 'my-data', 'name': 'my: "data"', 'split': 'test',
  }  # fmt: skip
  values = {m['name']: m['value'] for m in result['metrics']}
  assert values == {'top-1': 0.625, 'top-5': 1.0}
  assert '| top-1 | 62.5% |\n| top-5 | 100.0% |' in text
  assert 'on 8 videos' in text and 'cannot be read: 1.' in text
  path.write_text('{"top1": 7, "top5": 1, "videos": 8}')
  done = _export(workdir, tmp_path / 'other')
  assert done.code == 2 and 'summary.json is damaged: ' in done.stderr
  assert not (tmp_path / 'other').exists()


def test_a_place_with_files_of_others(run, folder, tmp_path):
  before = (run / 'config.json').read_bytes()
  done = _export(run, run)
  assert done.code == 2 and 'holds config.json of something' in done.stderr
  assert (run / 'config.json').read_bytes() == before
  (tmp_path / 'README.md').write_text('mine')
  assert _export(run, tmp_path).code == 2
  assert [path.name for path in tmp_path.iterdir()] == ['README.md']
  (tmp_path / 'README.md').unlink()
  assert _export(run, tmp_path).code == 0
  (tmp_path / 'README.md').write_text('old')
  assert _export(run, tmp_path).code == 0  # an earlier export is replaced
  assert (tmp_path / 'README.md').read_text() != 'old'


@pytest.mark.parametrize(
  ('flag', 'sentence'),
  [
    ('--license=CC BY 4.0', "(='CC BY 4.0') must be an SPDX identifier"),
    ('--license=x\ny: z', 'must be an SPDX identifier'),
    ('--onnx', '--onnx needs --format=program'),
    ('--format=tar', 'value should be one of <program|hub>'),
  ],
)
def test_flags_that_make_no_sense(flag, sentence, run, tmp_path):
  done = _export(run, tmp_path / 'out', flag)
  assert done.code == 2 and sentence in done.stderr
  assert not (tmp_path / 'out').exists()


def _edit(**changes):
  def edit(content):
    return json.dumps(json.loads(content) | changes).encode()

  return edit


def _edit_weights(content, name='params/classifier/bias', **changes):
  return safetensors.numpy.save(safetensors.numpy.load(content) | changes)


@pytest.mark.parametrize(
  ('name', 'edit', 'told'),
  [
    ('config.json', lambda c: c[:100], 'config.json is damaged: '),
    ('config.json', lambda c: b'\xff' + c, 'config.json is damaged: '),
    ('config.json', lambda c: b'[' * 10_000, 'config.json is damaged: '),
    ('config.json', lambda c: b'[]', 'config.json is damaged: it has no'),
    ('config.json', None, 'config.json cannot be read: No such file'),
    ('config.json', _edit(model_type='videomae'), "model_type 'videomae', and"),
    ('config.json', _edit(id2label={'0': 'a', '2': 'b'}), 'not name the class'),
    ('config.json', _edit(id2label={}), 'does not name the classes'),
    ('config.json', _edit(id2label={'0': []}), 'does not name the classes'),
    ('config.json', _edit(id2label='a'), 'does not name the classes'),
    ('config.json', _edit(label2id={'a': 0, 'b': 1}), 'does not name the clas'),
    ('config.json', _edit(model={'name': 'mtnet_q'}), "Unknown model .*'mtn"),
    (
      'config.json',
      _edit(id2label={'0': 'a', '1': 'b', '2': 'c'}, label2id=_THREE),
      r'classifier/bias is float32 \(2,\), and in the network float32 \(3,\)',
    ),
    ('config.json', _edit(model=3), "it has no section 'model'"),
    ('config.json', _edit(data={'num_frames': 1e9}), 'number from 1 to 1'),
    ('config.json', _edit(eval={'num_clips': {}}), 'should have eval.num_c'),
    ('config.json', _edit(model={'pooling': {'a': 1}}), 'has a key model.pool'),
    ('config.json', _edit(step=-1), r'step \(=-1\) of .* must be a number'),
    ('model.safetensors', lambda c: c[:-4], 'model.safetensors is damaged: '),
    ('model.safetensors', lambda c: c[:50], 'model.safetensors is damaged: '),
    ('model.safetensors', lambda c: b'', 'model.safetensors is damaged: '),
    ('model.safetensors', None, 'model.safetensors cannot be read: No such'),
    (
      'model.safetensors',
      lambda c: _edit_weights(c, more=np.zeros(2, np.float32)),
      r'more is float32 \(2,\), and in the network missing \(1 arrays',
    ),
    (
      'model.safetensors',
      lambda c: _edit_weights(
        c, **{'params/classifier/bias': np.zeros(2, np.float16)}
      ),
      r'bias is float16 \(2,\), and in the network float32 \(2,\)',
    ),
    ('preprocessor_config.json', lambda c: c[:9], 'config.json is damaged'),
    ('preprocessor_config.json', None, 'config.json cannot be read: No such'),
    (
      'preprocessor_config.json',
      _edit(image_mean=[0.5] * 3),
      r'image_mean \(=\[0.5, 0.5, 0.5\]\) of .* must be \[0.45, 0.45, 0.45\]',
    ),
  ],
)  # fmt: skip
def test_damaged_files(copy, name, edit, told):
  content = (copy / name).read_bytes()
  (copy / name).unlink()
  if edit is not None:
    (copy / name).write_bytes(edit(content))
  with pytest.raises(UserError, match=told) as caught:
    mtnet_jax.load(copy)
  assert '\n' not in str(caught.value)


def test_ids_of_the_hub(folder, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(UserError, match=r'no folder me/x\. .* "mtnet_jax\[hub\]'):
    mtnet_jax.load('me/x')
  asked = []

  def download(name, allow_patterns):
    asked.append((name, sorted(allow_patterns)))
    if name == 'me/away':
      raise FileNotFoundError('Got: ConnectError\nName not known.')
    return str(folder)

  package = types.SimpleNamespace(snapshot_download=download)
  monkeypatch.setitem(sys.modules, 'huggingface_hub', package)
  with pytest.raises(
    UserError, match=r'ed: Got: ConnectError Name not kn.*\. '
  ):
    mtnet_jax.load('me/away')
  assert mtnet_jax.load('me/my.model-1').class_names == tuple(_NAMES)
  assert asked[1] == ('me/my.model-1', _FILES[1:])  # the card is for readers


@pytest.mark.parametrize(
  'name', ['x', './me/x', '../me', 'me/x/y', '/me', 'a/']
)
def test_what_is_a_path_is_not_asked_for(name, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  with pytest.raises(UserError, match='Give the --workdir of a run'):
    mtnet_jax.load(name)


def test_a_folder_goes_before_an_id(folder, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  shutil.copytree(folder, tmp_path / 'me/x')
  assert mtnet_jax.load('me/x').class_names == tuple(_NAMES)
