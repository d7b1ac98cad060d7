"""Rehearses training on a TPU pod, on this machine alone: `make pod`.

  python -m examples.pod --out=runs/pod

It gives the commands of "A pod, step by step" (docs/scale.md) in their order,
shows each as it is typed, and says in a line what came of it. Two processes on
loopback are the pod's hosts, on a network so small that all takes some minutes
on two CPU cores. The bucket is an emulator, which ends with this script: what
the run has left there is copied to OUT/run. What the commands print goes to
OUT/logs.

At the first command that does not end as it should, the script ends with code 1
and a sentence. It takes the packages of `pip install -e .[dev]`, and for the
dry run an interpreter that has libtpu: this one, or that of --aot. What an
earlier rehearsal has made in OUT is removed first; a folder with other files in
it is refused.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

import fsspec

from examples import storage_emulator
from mtnet_jax import locations
from mtnet_jax.runs import metric_writer

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_WORKDIR = f'gs://{storage_emulator.BUCKET}/runs/pod'
_HOSTS = 2
_STEPS = 40
# The quick start on four frames of 32 x 32, of a network that is quickly
# compiled. Each step is logged, so that all can be counted.
_CONFIG = {
  'data.num_frames': 4,
  'data.short_side': 32,
  'data.crop_size': 32,
  'data.input_size': 32,
  'model.local_ratio': 1.0,
  'model.recurrence': False,
  'optim.warmup_steps': 5,
  'train.batch_size': 8,
  'train.num_steps': _STEPS,
  'train.log_every': 1,
  'train.eval_every': 20,
  'train.checkpoint_every': 10,
  'eval.num_clips': 2,
  'eval.crop_size': 32,
  'eval.input_size': 32,
}
# The shell variable that stands for these flags where commands are shown.
_FLAGS = '$FLAGS'
# What a rehearsal makes in its folder, and the file by which it knows it again.
_MADE = ('export', 'logs', 'records', 'run', 'videos', 'xla')
_MARK = 'made_by_make_pod.txt'
_LIMIT = 600  # seconds, for each step of the rehearsal

_Processes = Mapping[str, subprocess.Popen]


class _Failure(Exception):
  """A command has not ended as it should; the message says which and how."""


def main() -> int:
  """Rehearses everything, and returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  home = os.path.expanduser
  parser.add_argument(
    '--out', type=home, default='runs/pod', help='folder to write all files to'
  )
  parser.add_argument(
    '--aot',
    type=home,
    default='.venv-aot/bin/python',
    help='Python interpreter that has libtpu, for when this one has not; '
    'default: %(default)s',
  )
  options = parser.parse_args()
  out = pathlib.Path(options.out).absolute()
  if out.is_relative_to(_ROOT):  # as it is typed there
    out = out.relative_to(_ROOT)
  os.chdir(_ROOT)
  # Whatever ends this script ends what it has started.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  try:
    _clear(out)
    with storage_emulator.serve():
      _rehearse(out, options.aot)
  except _Failure as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print('Interrupted; the same command begins anew.', file=sys.stderr)
    return 128 + signal.SIGINT
  return 0


def _rehearse(out: pathlib.Path, aot: str) -> None:
  """Goes through all steps."""
  print(f'FLAGS="{_wrapped(_flags(out))}"')
  _make_records(out)
  _dry_run(out, aot)
  train = _on_all_hosts(
    'train.py', f'--config.train.compilation_cache={out / "xla"}'
  )
  _train_until_sigterm(out, train)
  _go_on(out, train)
  _evaluate(out)
  _predict(out)
  _export(out)
  _collect(out)


def _make_records(out: pathlib.Path) -> None:
  """Makes videos, and records of them that are stored small."""
  _title('Records, stored small')
  videos, records = out / 'videos', out / 'records'
  prepare = ['python', '-m', 'data.stick_figures.prepare', f'--out={videos}']
  _run(out, videos=[*prepare, '--train=2', '--val=1', '--test=1'])
  prepare = ['python', '-m', 'data.folder.prepare', f'--videos={videos}']
  side = f'--short_side={_CONFIG["data.short_side"]}'
  _run(out, records=[*prepare, f'--out={records}', side])
  manifest = json.loads((records / 'manifest.json').read_text('utf-8'))
  counts = {name: s['written'] for name, s in manifest['splits'].items()}
  _say('videos in records: ' + ', '.join(f'{v} {k}' for k, v in counts.items()))


def _dry_run(out: pathlib.Path, aot: str) -> None:
  """Compiles the train step for a slice of v5e, where there is a compiler."""
  _title('Dry run')
  find = 'import importlib.util as u, sys; sys.exit(not u.find_spec("libtpu"))'
  for python in ('python', aot):
    path = _interpreter(python)
    if shutil.which(path) and not subprocess.call([path, '-c', find]):
      break
  else:
    _say(
      f'left out: neither this Python nor {aot} has libtpu. `make '
      '.venv-aot/installed` installs it; so does pip install "jax[tpu]" in an '
      'environment of its own, which --aot=PYTHON names.'
    )
    return
  command = [python, 'train.py', _FLAGS, '--dry_run', '--target=v5e:2x2']
  _run(out, dry_run=command)
  for line in _log(out, 'dry_run', 'out').read_text().splitlines():
    _say(line)


def _train_until_sigterm(
  out: pathlib.Path, commands: Sequence[Sequence[str]]
) -> None:
  """Trains on all hosts, and tells one of them to stop."""
  _title('Train, and stop')
  with _started(out, **_named('train', commands)) as processes:
    _wait_for_steps(processes, 3)
    print(f'kill -TERM {processes["train-1"].pid}  # process 1', flush=True)
    processes['train-1'].send_signal(signal.SIGTERM)
    _finish(out, processes, os.EX_TEMPFAIL)
  done = _logged_steps()
  if len(done) >= _STEPS:
    raise _Failure(f'The run was not stopped: it has made all {_STEPS} steps.')
  _say(f'all saved and ended with code 75, after step {max(done)} of {_STEPS}')


def _go_on(out: pathlib.Path, commands: Sequence[Sequence[str]]) -> None:
  """Gives the same commands again."""
  _title('Go on: the same commands')
  _run(out, **_named('train_again', commands))
  log = _log(out, 'train_again-0', 'err').read_text()
  found = re.search(r'Resuming from the checkpoint of step (\d+)', log)
  if not found:
    raise _Failure(f'The run began anew, says {_log(out, "train_again-0")}.')
  done = _logged_steps()
  if done != list(range(1, _STEPS + 1)):
    raise _Failure(f'metrics.jsonl has not each step once, but {done}.')
  _say(
    f'went on from the checkpoint of step {found[1]} and finished with code 0; '
    f'metrics.jsonl has each of {_STEPS} steps once'
  )


def _evaluate(out: pathlib.Path) -> None:
  """Scores the run on all hosts."""
  _title('Evaluate')
  _run(out, **_named('evaluate', _on_all_hosts('eval.py')))
  _say(f'top-1 {_top1():.1%} of the test videos')


def _predict(out: pathlib.Path) -> None:
  """Judges a video."""
  _title('Predict')
  video = out / 'videos/test/high_five/0000.mp4'
  command = ['python', 'predict.py', f'--workdir={_WORKDIR}', '--json']
  _run(out, predict=[*command, '--top=1', str(video)])
  told = json.loads(_log(out, 'predict', 'out').read_text())
  ((name, share),) = told['probabilities'].items()
  _say(f'a high five is taken for {name}, with {share:.1%}')


def _export(out: pathlib.Path) -> None:
  """Exports the run, which checks the program in a process of its own."""
  _title('Export')
  folder = out / 'export'
  command = ['python', 'export.py', f'--workdir={_WORKDIR}', f'--out={folder}']
  _run(out, export=command)
  _say(f'{folder}: ' + ', '.join(sorted(p.name for p in folder.iterdir())))


def _collect(out: pathlib.Path) -> None:
  """Copies the run from the bucket, and lists its files."""
  copy = out / 'run'
  fsspec.filesystem('gcs').get(_WORKDIR, str(copy), recursive=True)
  print(f'\n{_WORKDIR}, copied to {copy}:')
  for path in sorted(copy.glob('*')) + sorted(copy.glob('*/*')):
    if path.is_file():
      print(f'  {path.relative_to(copy)}  {path.stat().st_size:,} bytes')
    elif path.parent != copy:
      files = [p for p in path.rglob('*') if p.is_file()]
      size = sum(p.stat().st_size for p in files)
      name = f'{path.relative_to(copy)}/'
      print(f'  {name}  {len(files)} files, {size:,} bytes')
  print(f'Evaluation: top-1 {_top1():.1%}')


def _on_all_hosts(script: str, *flags: str) -> list[list[str]]:
  """Returns the command that starts a script on each host."""
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    port = probe.getsockname()[1]
  several = [f'--coordinator=localhost:{port}', f'--num_processes={_HOSTS}']
  return [
    [
      'python', script, _FLAGS, f'--workdir={_WORKDIR}', *flags, *several,
      f'--process_id={host}',
    ]
    for host in range(_HOSTS)
  ]  # fmt: skip


def _flags(out: pathlib.Path) -> list[str]:
  """Returns what `$FLAGS` stands for."""
  values = {'data.dir': out / 'records'} | _CONFIG
  return [
    '--config=configs/quickstart.py',
    *(f'--config.{name}={value}' for name, value in values.items()),
  ]


def _named(
  name: str, commands: Sequence[Sequence[str]]
) -> dict[str, Sequence[str]]:
  """Returns the hosts' commands by the names of their logs."""
  return {f'{name}-{host}': command for host, command in enumerate(commands)}


def _run(out: pathlib.Path, **commands: Sequence[str]) -> None:
  """Runs commands side by side, all of which must end with code 0."""
  with _started(out, **commands) as processes:
    _finish(out, processes, os.EX_OK)


@contextlib.contextmanager
def _started(
  out: pathlib.Path, **commands: Sequence[str]
) -> Iterator[_Processes]:
  """Shows commands and starts them side by side; none outlives the block.

  Args:
    out: the rehearsal's folder.
    **commands: words, by the name of the command's logs.
  """
  # Rehearsed is on the CPU, whatever else the machine has.
  environment = os.environ | {'JAX_PLATFORMS': 'cpu'}
  processes = {}
  with contextlib.ExitStack() as stack:
    for name, command in commands.items():
      print(_wrapped(command), flush=True)
      words = [_interpreter(command[0])]
      for word in command[1:]:
        words += _flags(out) if word == _FLAGS else [word]
      stdout, stderr = (
        stack.enter_context(_log(out, name, kind).open('w'))
        for kind in ('out', 'err')
      )
      process = subprocess.Popen(
        words, env=environment, stdout=stdout, stderr=stderr
      )
      stack.callback(process.wait)
      stack.callback(process.kill)
      processes[name] = process
    yield processes


def _finish(out: pathlib.Path, processes: _Processes, wanted: int) -> None:
  """Waits until all have ended, with the code that is wanted of each."""
  end = time.monotonic() + _LIMIT
  for name, process in processes.items():
    try:
      process.wait(max(0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
      text = f'{name} has not ended after {_LIMIT} s ({_log(out, name)}).'
      raise _Failure(text) from None
  for name, process in processes.items():
    if process.returncode != wanted:
      log = _log(out, name)
      last = log.read_text().strip().rpartition('\n')[2]
      raise _Failure(
        f'{name} ended with code {process.returncode} rather than {wanted}: '
        f'{last or "it said nothing"} ({log})'
      )


def _wait_for_steps(processes: _Processes, count: int) -> None:
  """Waits until so many steps are logged, or a process has ended."""
  end = time.monotonic() + _LIMIT
  while len(_logged_steps()) < count:
    if any(process.poll() is not None for process in processes.values()):
      return
    if time.monotonic() > end:
      raise _Failure(f'No {count} steps are logged after {_LIMIT} s.')
    time.sleep(0.1)


def _logged_steps() -> list[int]:
  """Returns the steps of the run's training, as metrics.jsonl has them."""
  records = metric_writer.read(f'{_WORKDIR}/metrics.jsonl')
  return [r['step'] for r in records if 'train/loss' in r]


def _top1() -> float:
  """Returns the accuracy of the run's evaluation."""
  path = locations.as_path(_WORKDIR) / 'evaluation/summary.json'
  return json.loads(path.read_text())['top1']


def _log(out: pathlib.Path, name: str, kind: str = 'err') -> pathlib.Path:
  """Returns the file of what a command prints: to stdout, 'out', or 'err'."""
  return out / f'logs/{name}.{kind}'


def _clear(out: pathlib.Path) -> None:
  """Makes the folder, without what an earlier rehearsal has made in it."""
  mark = out / _MARK
  if out.exists() and not out.is_dir():
    raise _Failure(f'{out} is no folder: give another --out.')
  if out.is_dir() and any(out.iterdir()) and not mark.exists():
    raise _Failure(
      f'{out} is not empty and holds no rehearsal: give --out a new folder.'
    )
  try:
    out.mkdir(parents=True, exist_ok=True)
    mark.write_text(f'The next rehearsal removes {", ".join(_MADE)}.\n')
    for name in _MADE:
      if (out / name).exists():
        shutil.rmtree(out / name)
    (out / 'logs').mkdir()
  except OSError as error:
    raise _Failure(
      f'{out} cannot be made ready: {error}. Mend this, or give another --out.'
    ) from error


def _interpreter(name: str) -> str:
  """Returns the interpreter that a shown command names."""
  return sys.executable if name == 'python' else name


def _wrapped(words: Sequence[str]) -> str:
  """Returns a command in lines of at most 80 columns, where words allow it."""
  lines = ['']
  for word in words:
    word = word if word == _FLAGS else shlex.quote(word)
    if lines[-1] and len(lines[-1]) + len(word) > 76:
      lines.append(' ')
    lines[-1] += f' {word}' if lines[-1] else word
  return ' \\\n'.join(lines)


def _title(text: str) -> None:
  print(f'\n# {text}', flush=True)


def _say(text: str) -> None:
  print(f'-> {text}', flush=True)


if __name__ == '__main__':
  sys.exit(main())
