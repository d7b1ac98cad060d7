"""Mistakes in flags and configurations: one sentence, exit code 2."""

import os
import subprocess
import sys

import pytest

_COMMAND = """
import errno
from mtnet_jax import cli
from mtnet_jax.errors import UserError

holder = cli.define_config()

def main(_):
  config = cli.get_config(holder)
  if config.seed == 13:
    raise UserError('13 is bad luck: give another seed.')
  if config.seed == 14:
    raise RuntimeError('ours')
  if config.seed == 15:
    raise OSError(errno.ENOSPC, 'No space left on device', 'runs/x')
  if config.seed == 16:
    raise KeyboardInterrupt
  print(config.optim.learning_rate, config.optim.milestones, config.is_locked)

cli.run(main)
"""


def _run(root, *arguments, command=_COMMAND, stdout=subprocess.PIPE):
  return subprocess.run(
    [sys.executable, '-c', command, *arguments],
    cwd=root,
    env=os.environ | {'PYTHONPATH': str(root)},
    stdout=stdout,
    stderr=subprocess.PIPE,
    text=True,
  )


def test_any_key_can_be_set(root):
  done = _run(
    root,
    '--config=configs/srtg.py:r3d_50',
    '--config.optim.learning_rate=0.5',
    '--config.optim.milestones=(1,2)',
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout == '0.5 (1, 2) True\n'


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
def test_a_mistake_is_one_sentence_and_code_2(root, arguments, sentence):
  done = _run(root, *arguments)
  assert done.returncode == 2
  assert sentence in done.stderr
  assert 'Traceback' not in done.stderr and done.stdout == ''
  assert len(done.stderr.splitlines()) == 1


def test_a_run_of_an_ablation_can_be_chosen(root):
  done = _run(
    root,
    '--config=configs/ablations.py:5.8/softpool+cos/quickstart',
    '--config.optim.learning_rate=0.5',
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout == '0.5 () True\n'


def test_a_defect_of_ours_keeps_its_traceback(root):
  done = _run(root, '--config=configs/base.py', '--config.seed=14')
  assert done.returncode == 1 and 'RuntimeError: ours' in done.stderr


def test_arguments_that_are_no_flags_reach_a_command_that_takes_them(root):
  command = """
from absl import flags
from mtnet_jax import cli
flags.DEFINE_bool('loud', False, '')
cli.run(lambda argv: print(argv[1:], flags.FLAGS.loud), takes_arguments=True)
"""

  def run(*arguments):
    return subprocess.run(
      [sys.executable, '-c', command, *arguments],
      cwd=root,
      env=os.environ | {'PYTHONPATH': str(root)},
      capture_output=True,
      text=True,
    )

  # Flags may come last, and behind `--` nothing is one.
  done = run('a.mp4', '--loud', '--', '-b.mp4')
  assert done.stdout == "['a.mp4', '-b.mp4'] True\n"
  done = run('a.mp4', '--lowd')
  assert done.returncode == 2 and 'Did you mean: loud' in done.stderr


@pytest.mark.parametrize(
  ('given', 'sentence'),
  [
    ('', 'Interrupted.\n'),
    ('goes_on=True', 'Interrupted; the same command goes on.\n'),
  ],
)
def test_ctrl_c_says_whether_it_goes_on(root, given, sentence):
  command = _COMMAND.replace('cli.run(main)', f'cli.run(main, {given})')
  arguments = '--config=configs/base.py', '--config.seed=16'
  done = _run(root, *arguments, command=command)
  assert done.returncode == 130 and done.stderr == sentence


_WRITING = """
import os
from mtnet_jax import cli

def main(argv):
  if argv[1:] == ['elsewhere']:
    raise BrokenPipeError('ours')
  for _ in range(2):
    print('x' * 100_000, flush=argv[1:] == ['flush'])

cli.run(main, takes_arguments=True)
"""


@pytest.mark.parametrize('argument', ['', 'flush', '--help'])
def test_nobody_reads_any_more(root, argument):
  read, write = os.pipe()
  os.close(read)
  done = _run(root, argument, command=_WRITING, stdout=write)
  os.close(write)
  assert (done.returncode, done.stderr) == (141, '')


def test_a_pipe_that_is_not_stdout_is_a_defect(root):
  done = _run(root, 'elsewhere', command=_WRITING)
  assert done.returncode == 1 and 'BrokenPipeError: ours' in done.stderr
