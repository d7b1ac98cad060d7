"""Mistakes in flags and configurations: one sentence, exit code 2."""

import dataclasses
import errno
import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from mtnet_jax import cli
from mtnet_jax.errors import UserError
from tests import command_line


@pytest.fixture(autouse=True)
def in_the_root(root, monkeypatch):
  """Configurations are named by their paths from there."""
  monkeypatch.chdir(root)


def main(values, arguments):
  config = cli.get_config(values)
  if config.seed == 13:
    raise UserError('13 is bad luck: give another seed.')
  if config.seed == 14:
    raise RuntimeError('ours')
  if config.seed == 15:
    raise OSError(errno.ENOSPC, 'No space left on device', 'runs/x')
  if config.seed == 16:
    raise KeyboardInterrupt
  print(config.optim.learning_rate, config.optim.milestones, config.is_locked)
  return 3 if config.seed == 3 else None


COMMAND = cli.Command(main, cli.define_config)


def test_any_key_can_be_set():
  done = command_line.run(
    COMMAND,
    '--config=configs/srtg.py:r3d_50',
    '--config.optim.learning_rate=0.5',
    '--config.optim.milestones=(1,2)',
  )
  assert done.code == 0, done.stderr
  assert done.stdout == '0.5 (1, 2) True\n'


@pytest.mark.parametrize(
  'given', [['--config=srtg:r3d_50'], ['--config', 'srtg:r3d_50']]
)
def test_a_configuration_has_a_name_wherever_one_is(
  given, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  done = command_line.run(COMMAND, *given, '--config.optim.learning_rate=0.5')
  assert done.stdout == '0.5 (40, 70, 120) True\n', done.stderr
  # A file of such a name is one, with its suffix.
  (tmp_path / 'srtg.py').write_text(
    'from mtnet_jax.configs import base\n'
    'def get_config(depth):\n'
    '  config = base.get_config()\n'
    '  config.optim.learning_rate = float(depth)\n'
    '  return config\n'
  )
  done = command_line.run(COMMAND, '--config=srtg.py:7')
  assert done.stdout == '7.0 () True\n', done.stderr


def test_files_elsewhere_are_told_in_names_that_are_there(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  done = command_line.run(COMMAND, '--config=configs/srtg.py')
  assert (
    "no configuration at 'configs/srtg.py'. Give --config=FILE.py, or one of "
    'these: ablations, class_regularization, csn, finetune, '
  ) in done.stderr
  done = command_line.run(COMMAND, '--config=base', '--config.zzzz=1')
  path = done.stderr.split('; ')[1].removesuffix(' lists them all.\n')
  assert 'def get_config()' in pathlib.Path(path).read_text()


def test_a_file_that_imports_what_is_not_there(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text('from my_configs import base\n')
  done = command_line.run(COMMAND, f'--config={path}')
  assert done.code == 2 and done.stderr.count('\n') == 1
  assert "No module named 'my_configs'" in done.stderr
  assert 'from mtnet_jax.configs import base' in done.stderr


def test_a_command_has_its_own_codes():
  done = command_line.run(
    COMMAND, '--config=configs/base.py', '--config.seed=3'
  )
  assert done.code == 3


@pytest.mark.parametrize(
  ('arguments', 'sentence'),
  [
    (
      ['--config=configs/base.py', '--config.optim.learnin_rate=1'],
      "no key 'learnin_rate'. Did you mean 'learning_rate'?",
    ),
    (
      ['--config=configs/base.py', '--config.optm.momentum=1'],
      "no key 'optm'. Did you mean 'optim'?",
    ),
    (
      ['--config=configs/base.py', '--config.zzzz=1'],
      "no key 'zzzz'; configs/base.py lists them all.",
    ),
    (
      ['--config=configs/base.py', '--config.optim.momentum=much'],
      "could not convert string to float: 'much'",
    ),
    (
      ['--config=configs/mtnet_x.py', '--config.seed=1'],
      "no configuration at 'configs/mtnet_x.py'. Give --config=FILE.py",
    ),
    (['--config=configs/mtnet_x.py'], 'configs/mtnet_l.py, configs/mtnet_m.py'),
    (
      ['--config=mtnet_x'],
      "There is no configuration 'mtnet_x'. Did you mean 'mtnet_s'?",
    ),
    (['--config=zzz'], 'srtg, transfer, tsm, ut_interaction.'),
    (
      ['--config=srtg:r3d_50', '--config.optm.momentum=1'],
      "no key 'optm'. Did you mean 'optim'?",
    ),
    (['--config=configs/mtnet_l.py:x'], '--config cannot be loaded: TypeError'),
    (
      ['--config=configs/ablations.py:5.8'],
      '--config cannot be loaded: Table 5.8 compares poolings',
    ),
    (
      ['--config=configs/ablations.py:4.1/r3d_md', '--config.seed=1'],
      "--config cannot be loaded: Table 4.1 has no run 'r3d_md'. It compares",
    ),
    ([], '--config is needed: one of configs/'),
    (['--confg=configs/base.py'], 'Did you mean: config ?'),
    (['--config=configs/base.py', 'workdir'], "'workdir' is not a flag"),
    (['--config=configs/base.py', '--config.seed=13'], '13 is bad luck'),
    (
      ['--config=configs/base.py', '--config.seed=15'],
      "No space left on device: 'runs/x'. Free some space",
    ),
  ],
)
def test_a_mistake_is_one_sentence_and_code_2(arguments, sentence):
  done = command_line.run(COMMAND, *arguments)
  assert done.code == 2
  assert sentence in done.stderr
  assert 'Traceback' not in done.stderr and done.stdout == ''
  assert len(done.stderr.splitlines()) == 1


def test_a_run_of_an_ablation_can_be_chosen():
  done = command_line.run(
    COMMAND,
    '--config=configs/ablations.py:5.8/softpool+cos/quickstart',
    '--config.optim.learning_rate=0.5',
  )
  assert done.code == 0, done.stderr
  assert done.stdout == '0.5 () True\n'


def test_a_defect_of_ours_is_no_sentence():
  with pytest.raises(RuntimeError, match='ours'):
    command_line.run(COMMAND, '--config=configs/base.py', '--config.seed=14')


def define_loud(values):
  flags.DEFINE_bool('loud', False, '', flag_values=values)


def test_arguments_that_are_no_flags_reach_a_command_that_takes_them():
  command = cli.Command(
    lambda values, arguments: print(arguments, values.loud),
    define_loud,
    takes_arguments=True,
  )
  # Flags may come last, and behind `--` nothing is one.
  done = command_line.run(command, 'a.mp4', '--loud', '--', '-b.mp4')
  assert done.stdout == "['a.mp4', '-b.mp4'] True\n"
  done = command_line.run(command, 'a.mp4', '--lowd')
  assert done.code == 2 and 'Did you mean: loud' in done.stderr


@pytest.mark.parametrize(
  ('resumes', 'sentence'),
  [
    (False, 'Interrupted.\n'),
    (True, 'Interrupted; the same command resumes.\n'),
  ],
)
def test_ctrl_c_says_whether_it_goes_on(resumes, sentence):
  command = dataclasses.replace(COMMAND, resumes=resumes)
  arguments = '--config=configs/base.py', '--config.seed=16'
  done = command_line.run(command, *arguments)
  assert done.code == 130 and done.stderr == sentence


def define_paths(values):
  cli.define_config(values)
  flags.DEFINE_string('workdir', '', '', flag_values=values)
  flags.DEFINE_multi_string('run', [], '', flag_values=values)


@pytest.mark.parametrize(
  ('arguments', 'told'),
  [
    (['--workdir=~/runs/a'], '/home/me/runs/a'),
    (['--workdir', '~/runs/a'], '/home/me/runs/a'),
    (['--workdir=~'], '/home/me'),
    (['--workdir=~root/a'], f'{os.path.expanduser("~root")}/a'),
    (['--workdir=~no_such_user/a'], '~no_such_user/a'),
    (['--workdir=gs://bucket/~/a'], 'gs://bucket/~/a'),
    (['--workdir=./~/a'], './~/a'),
    (['--workdir=runs/~'], 'runs/~'),
    (['--run=my own=~/a', '--run=b=c~/d'], "['my own=/home/me/a', 'b=c~/d']"),
    (['~/a.mp4', 'b~/c.mp4'], "['/home/me/a.mp4', 'b~/c.mp4']"),
    (['--config.data.dir=~/data'], 'data.dir /home/me/data'),
    (['--config.train.init_from=~/run'], 'train.init_from /home/me/run'),
    (
      ['--config.train.compilation_cache', '~/xla'],
      'train.compilation_cache /home/me/xla',
    ),
  ],
)  # fmt: skip
def test_a_tilde_is_the_home_of_a_user(monkeypatch, arguments, told):
  monkeypatch.setenv('HOME', '/home/me')

  def tell(values, arguments):
    print(values.workdir or values.run or arguments)
    for key in ('data.dir', 'train.init_from', 'train.compilation_cache'):
      section, name = key.split('.')
      print(key, cli.get_config(values)[section][name])

  command = cli.Command(tell, define_paths, takes_arguments=True)
  done = command_line.run(command, '--config=configs/base.py', *arguments)
  assert done.code == 0, done.stderr
  assert told in done.stdout.splitlines()


def test_a_tilde_in_files(monkeypatch, tmp_path):
  """Of configuration, which is itself named so, and of flags."""
  monkeypatch.setenv('HOME', str(tmp_path))
  (tmp_path / 'mine.py').write_text(
    'from configs import base\n'
    'def get_config(name="a"):\n'
    '  config = base.get_config()\n'
    '  config.data.dir = "~/data/" + name\n'
    '  config.eval.split = "a~b"\n'
    '  return config\n'
  )
  (tmp_path / 'flags').write_text('--workdir=~/run\n')

  def tell(values, _):
    config = cli.get_config(values)
    print(config.data.dir, config.eval.split, values.workdir, config.is_locked)

  done = command_line.run(
    cli.Command(tell, define_paths),
    '--config=~/mine.py:b',
    '--flagfile=~/flags',
  )
  assert done.code == 0, done.stderr
  assert done.stdout == f'{tmp_path}/data/b a~b {tmp_path}/run True\n'


# What concerns a whole process: the text of the command is shown by --help, and
# an exception that is not a UserError, 'ours', keeps its traceback.
_WRITING = '''
"""Writes much."""
import os
from mtnet_jax import cli

def main(_, arguments):
  if arguments == ['elsewhere']:
    raise BrokenPipeError('ours')
  for _ in range(2):
    print('x' * 100_000, flush=arguments == ['flush'])
  return 7

cli.run(cli.Command(main, cli.define_config, takes_arguments=True))
'''


def _run(root, *arguments, stdout=subprocess.PIPE):
  return subprocess.run(
    [sys.executable, '-c', _WRITING, *arguments],
    cwd=root,
    env=os.environ | {'PYTHONPATH': str(root)},
    stdout=stdout,
    stderr=subprocess.PIPE,
    text=True,
  )


@pytest.mark.parametrize('argument', ['', 'flush', '--help'])
def test_nobody_reads_any_more(root, argument):
  read, write = os.pipe()
  os.close(read)
  done = _run(root, argument, stdout=write)
  os.close(write)
  assert (done.returncode, done.stderr) == (141, '')


def test_a_pipe_that_is_not_stdout_is_a_defect(root):
  done = _run(root, 'elsewhere')
  assert done.returncode == 1 and 'BrokenPipeError: ours' in done.stderr


def test_a_process_shows_its_help_and_ends_with_its_code(root):
  shown = _run(root, '--help')
  assert 'Writes much.' in shown.stdout and '--config:' in shown.stdout
  assert shown.returncode == 0
  done = _run(root)
  assert done.returncode == 7 and len(done.stdout) == 200_002
