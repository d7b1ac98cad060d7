"""A run knows itself: what a command line may change of it, and what not."""

import json
import logging
import re

import ml_collections
import pytest

from configs import base
from mtnet_jax import cli, locations
from mtnet_jax.errors import UserError
from mtnet_jax.runs import configuration, given
from tests import command_line


def _run(tmp_path, change=lambda sections: None, **values):
  """A run's folder with a configuration alone."""
  config = base.get_config()
  config.update_from_flattened_dict(
    {'model.name': 'mtnet_xs', 'data.dir': 'DATA', 'data.frame_stride': 6}
    | {name.replace('__', '.'): value for name, value in values.items()}
  )
  sections = json.loads(config.to_json_best_effort())
  change(sections)
  (tmp_path / 'config.json').write_text(json.dumps(sections))
  return tmp_path


def _read(run, *flags):
  """Returns the configuration that a command goes by, and what it printed."""
  found = []
  command = cli.Command(
    lambda values, _: found.append(configuration.read(run, given.read(values))),
    given.define_flags,
  )
  done = command_line.run(command, *flags)
  return (found or [None])[0], done


def _file(tmp_path, **values):
  """A file of configuration with these values."""
  path = tmp_path / 'file.py'
  lines = [
    f'  config.{k.replace("__", ".")} = {v!r}' for k, v in values.items()
  ]
  path.write_text(
    '\n'.join(
      [
        'from configs import base',
        'def get_config():',
        '  config = base.get_config()',
        *lines,
        '  return config',
      ]
    )
  )
  return f'--config={path}'


def test_a_run_goes_by_its_own_configuration(tmp_path):
  run = _run(
    tmp_path,
    model__cell='lstm',
    eval__num_clips=3,
    model__affection_rates=(0.5, 0.25),
  )
  config, done = _read(run)
  assert done.code == 0, done.stderr
  assert config.is_locked and config.model.name == 'mtnet_xs'
  assert config.model.cell == 'lstm' and config.model.gate is None
  assert config.model.affection_rates == (0.5, 0.25)
  assert (config.eval.num_clips, config.eval.num_crops) == (3, 3)
  assert (config.data.dir, config.data.frame_stride) == ('DATA', 6)


def test_what_a_command_line_may_change(tmp_path):
  config, done = _read(
    _run(tmp_path),
    '--config.data.dir=other',
    '--config.data.num_workers=7',
    '--config.data.prefetch=5',
    '--config.eval.split=val',
    '--config.eval.num_clips=1',
    '--config.eval.reversed_pairs=(("a","b"),)',
    '--config.mesh.fsdp=2',
    '--config.model.dtype=bfloat16',
    '--config.model.rematerialize',
    '--config.train.stall_timeout=30',
    '--config.optim.learning_rate=9',  # of training: never compared
  )
  assert done.code == 0, done.stderr
  data = config.data
  assert (data.dir, data.num_workers, data.prefetch) == ('other', 7, 5)
  assert (config.eval.split, config.eval.num_clips) == ('val', 1)
  assert config.eval.reversed_pairs == (('a', 'b'),)
  assert config.mesh.fsdp == 2 and config.train.stall_timeout == 30
  assert config.model.dtype == 'bfloat16' and config.model.rematerialize
  assert config.model.name == 'mtnet_xs' and data.frame_stride == 6


@pytest.mark.parametrize(
  ('key', 'own', 'other'),
  [
    ('model.name', "'mtnet_xs'", 'mtnet_s'),
    ('model.cell', 'None', 'lstm'),
    ('model.dropout', 'None', '0.5'),
    ('model.affection_rates', 'None', '(0.5,)'),
    ('data.num_frames', '16', '8'),
    ('data.frame_stride', '6', '12'),
    ('data.sampling', "'clip'", 'uniform'),
    ('data.crop_size', '224', '112'),
    ('data.input_size', '224', '112'),
    ('data.short_videos', "'repeat'", 'error'),
  ],
)
def test_another_network_and_other_clips(tmp_path, caplog, key, own, other):
  run, flag = _run(tmp_path), f'--config.{key}={other}'
  _, done = _read(run, flag)
  assert done.code == 2 and len(done.stderr.splitlines()) == 1
  told = re.search(
    r': (\S+) is (\S+) in the run, (.+) was given\.', done.stderr
  )
  assert told[1] == key and told[2] == own
  assert '--allow_other_config' in done.stderr
  with caplog.at_level(logging.WARNING):
    config, done = _read(run, flag, '--allow_other_config')
  assert done.code == 0 and f'{key} is {own} in the run' in caplog.text
  section, name = key.split('.')
  assert str(config[section][name]).replace('.0', '').strip('(,)') in other


def test_all_that_differ_are_named(tmp_path):
  _, done = _read(
    _run(tmp_path), '--config.data.num_frames=8', '--config.model.cell=rnn'
  )
  assert 'data.num_frames is 16 in the run, 8 was given' in done.stderr
  assert "model.cell is None in the run, 'rnn' was given" in done.stderr


def test_a_value_that_is_the_runs_may_be_given(tmp_path):
  run = _run(tmp_path, model__affection_rates=(0.5,))
  config, done = _read(
    run,
    '--config.data.frame_stride=6',
    '--config.model.name=mtnet_xs',
    '--config.model.affection_rates=(0.5,)',
  )
  assert done.code == 0, done.stderr
  assert config.data.frame_stride == 6


@pytest.mark.parametrize(
  ('flag', 'sentence'),
  [
    ('--config.eval.num_clip=1', "no key 'num_clip'. Did you mean 'num_clips'"),
    ('--config.evl.num_clips=1', "no key 'evl'. Did you mean 'eval'?"),
    ('--config.zzzz=1', "no key 'zzzz'; configs/base.py lists them all."),
    ('--config.eval.num_clips=many', 'invalid literal for int() with base 10'),
    ('--config=missing.py', "no configuration at 'missing.py'"),
  ],
)
def test_a_mistake_is_one_sentence(tmp_path, flag, sentence):
  _, done = _read(_run(tmp_path), flag)
  assert done.code == 2 and sentence in done.stderr
  assert len(done.stderr.splitlines()) == 1 and 'Traceback' not in done.stderr


def test_a_file_that_agrees_is_as_good_as_none(tmp_path):
  run = _run(
    tmp_path,
    data__num_workers=4,
    model__dtype='bfloat16',
    optim__learning_rate=0.3,
    eval__num_clips=2,
  )
  file = _file(
    tmp_path,
    model__name='mtnet_xs',
    data__frame_stride=6,
    optim__learning_rate=0.9,
    eval__num_crops=1,
  )
  config, done = _read(run, file)
  assert done.code == 0, done.stderr
  # The file leaves these alone; `eval` is all its own.
  assert config.data.dir == 'DATA' and config.data.num_workers == 4
  assert config.model.dtype == 'bfloat16'
  assert (config.eval.num_clips, config.eval.num_crops) == (10, 1)
  config, _ = _read(run, file, '--config.data.num_workers=2')
  assert config.data.num_workers == 2  # the default, but given


def test_a_file_of_another_network(tmp_path):
  run, file = _run(tmp_path), _file(tmp_path, data__frame_stride=5)
  _, done = _read(run, file)
  assert done.code == 2
  assert 'data.frame_stride is 6 in the run, 5 was given' in done.stderr
  assert "model.name is 'mtnet_xs' in the run, 'mtnet_m'" in done.stderr
  flags = '--config.data.frame_stride=6', '--config.model.name=mtnet_xs'
  assert _read(run, file, *flags)[1].code == 0


def test_a_run_from_before_a_key_has_its_default(tmp_path):
  def without(sections):
    del sections['data']['read_attempts'], sections['model']['repeat_edges']
    del sections['mesh']

  run = _run(tmp_path, without)
  config, done = _read(run, '--config.data.short_videos=repeat')
  assert done.code == 0, done.stderr
  assert config.data.read_attempts == 4 and config.mesh.fsdp == 1
  assert config.model.repeat_edges is None
  _, done = _read(run, '--config.model.repeat_edges=True')
  assert 'model.repeat_edges is None in the run, True was given' in done.stderr


def test_keys_that_are_no_more_are_left_alone(tmp_path):
  def with_old(sections):
    sections['data']['of_yore'] = sections['model']['of_yore'] = None
    sections['yore'] = {'key': 3}

  config, done = _read(_run(tmp_path, with_old), '--config.eval.num_clips=1')
  assert done.code == 0, done.stderr
  assert config.eval.num_clips == 1


@pytest.mark.parametrize(
  ('section', 'key', 'value', 'kind'),
  [
    ('data', 'num_workers', 'two', 'int'),
    ('data', 'num_workers', True, 'int'),
    ('train', 'stall_timeout', None, 'int'),
    ('eval', 'split', 3, 'str'),
    ('eval', 'reversed_pairs', 'ab', 'tuple'),
  ],
)
def test_a_value_of_another_type_is_told(tmp_path, section, key, value, kind):
  def spoil(sections):
    sections[section][key] = value

  with pytest.raises(
    UserError, match=rf'{section}\.{key} \(=.*must be of the type {kind}'
  ):
    configuration.read(_run(tmp_path, spoil), given.Given(base.get_config()))


@pytest.mark.parametrize(
  ('change', 'told'),
  [
    ({'mesh': 5}, 'has a key mesh, and should have mesh.data'),
    ({'seed': {'a': 1}}, 'has a key seed.a, and should have seed'),
    ({'train': {'log_every': {'a': 1}}}, r'key train\.log_every\.a, and'),
    ({'model': {'cell': {'a': 1}}}, r'key model\.cell\.a, and should'),
  ],
)
def test_sections_and_values_are_not_each_other(tmp_path, change, told):
  def spoil(sections):
    for key, value in change.items():
      both = isinstance(value, dict) and isinstance(sections[key], dict)
      sections[key] = sections[key] | value if both else value

  with pytest.raises(UserError, match=told):
    configuration.read(_run(tmp_path, spoil), given.Given(base.get_config()))


def test_a_number_may_lack_its_point(tmp_path):
  def whole(sections):
    sections['train']['num_epochs'] = 400

  config, done = _read(_run(tmp_path, whole))
  assert done.code == 0, done.stderr
  assert config.train.num_epochs == 400


@pytest.mark.parametrize(
  ('flag', 'told'),
  [
    ('--config.data.frame_stride=6', '--config.data.frame_stride'),
    ('--config.eval.input_size=64', '--config.eval.input_size'),
    ('--config.model.dtype=bfloat16', '--config.model.dtype'),
    ('--config=configs/quickstart.py', '--config=FILE'),
  ],
)
def test_a_program_is_what_it_is(root, monkeypatch, flag, told):
  monkeypatch.chdir(root)
  stored = ml_collections.ConfigDict(
    {'data': {'frame_stride': 6}, 'eval': {'num_clips': 10, 'num_crops': 3}}
  )
  found = []
  command = cli.Command(
    lambda values, _: found.append(
      configuration.adapt_export(stored, given.read(values), 'The export')
    ),
    given.define_flags,
  )
  done = command_line.run(command, flag)
  assert done.code == 2
  assert f'The export is compiled, and {told} cannot be applied' in done.stderr
  assert command_line.run(command, '--config.eval.num_clips=1').code == 0
  assert (found[0].eval.num_clips, found[0].eval.num_crops) == (1, 3)
  assert found[0].data.frame_stride == 6 and found[0].is_locked


@pytest.mark.parametrize('text', ['{', '[]', '\udcff'])
def test_what_differs_from_a_damaged_file(tmp_path, text):
  path = tmp_path / 'config.json'
  path.write_bytes(text.encode(errors='surrogateescape'))
  told = configuration.differences(path, base.get_config())
  assert told == ['the file was damaged']


def test_a_run_on_a_bucket(bucket, tmp_path):
  folder = locations.as_path(bucket)
  folder.mkdir(parents=True, exist_ok=True)
  text = (_run(tmp_path) / 'config.json').read_text()
  (folder / 'config.json').write_text(text)
  config, done = _read(bucket, '--config.eval.num_clips=1')
  assert done.code == 0, done.stderr
  assert (config.data.frame_stride, config.eval.num_clips) == (6, 1)
  _, done = _read(bucket, '--config.data.frame_stride=5')
  assert done.code == 2 and f'error: {bucket} was trained' in done.stderr
