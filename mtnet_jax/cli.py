"""What every command shares: flags, and one sentence for a mistake."""

import dataclasses
import errno
import logging as std_logging
import os
import pathlib
import re
import select
import signal
import sys
from collections.abc import Callable, Sequence

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from mtnet_jax.errors import UserError

USER_ERROR = 2
# The same command goes on where this one stopped; sysexits.h's EX_TEMPFAIL.
RESUME = os.EX_TEMPFAIL
_PACKAGE = pathlib.Path(__file__).resolve().parent
_INTERRUPTED = 128 + signal.SIGINT
_BROKEN_PIPE = 128 + signal.SIGPIPE


def run(
  main: Callable[[Sequence[str]], None],
  *,
  takes_arguments: bool = False,
  goes_on: bool = False,
) -> None:
  """Parses the flags and calls `main(argv)`, then exits.

  Args:
    main: the command. What it raises as `UserError`, and every mistake in the
      flags, is printed to stderr as one sentence and ends the process with
      code 2. Any other exception is a defect of ours and keeps its traceback.
      Where nobody reads stdout any more, it ends as other programs do, with
      code 141 and without a word.
    takes_arguments: that are no flags, such as files; else they are a mistake.
    goes_on: the command, interrupted and given again, goes on where it stopped.
  """

  def guarded(argv: Sequence[str]) -> None:
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(_worth_reading)
    if len(argv) > 1 and not takes_arguments:
      _fail(f'{argv[1]!r} is not a flag: flags begin with `--`.')
    try:
      main(argv)
    except UserError as error:
      _fail(str(error))
    except OSError as error:
      if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        raise
      _fail(f'{error}. Free some space and give the same command again.')
    except KeyboardInterrupt:
      hint = '; the same command goes on' if goes_on else ''
      print(f'Interrupted{hint}.', file=sys.stderr)
      sys.exit(_INTERRUPTED)

  try:
    try:
      app.run(guarded, flags_parser=_parse_flags)
    finally:
      sys.stdout.flush()
  except BrokenPipeError:
    if not _nobody_reads(sys.stdout.fileno()):
      raise  # another pipe's, a loader process's for instance
    # What is still to be written would raise again when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(_BROKEN_PIPE)


def _nobody_reads(pipe: int) -> bool:
  """Whether the reader of a pipe, `head` perhaps, is gone."""
  poll = select.poll()
  poll.register(pipe, 0)
  return any(event & select.POLLERR for _, event in poll.poll(0))


def define_config() -> flags.FlagHolder:
  """Declares `--config=FILE.py[:argument]` and `--config.KEY=VALUE`."""
  return config_flags.DEFINE_config_file(
    'config', None, 'A file of configs/, for instance configs/quickstart.py.'
  )


@dataclasses.dataclass(frozen=True)
class Processes:
  """Which of how many processes this one is, as the command line tells.

  Attributes:
    coordinator: address `HOST:PORT` of process 0, or '' to ask the cluster.
    count: of the processes; None: ask the cluster.
    index: of this one, from 0; None: ask the cluster.
  """

  coordinator: str
  count: int | None
  index: int | None


def define_processes() -> Callable[[], Processes | None]:
  """Declares the flags of a run on several processes.

  Returns:
    A function that gives them, parsed; None for a single process.
  """
  together = flags.DEFINE_bool(
    'distributed', False, 'One of several processes; the cluster says which.'
  )
  coordinator = flags.DEFINE_string(
    'coordinator', '', 'HOST:PORT of process 0, where no cluster says it.'
  )
  count = flags.DEFINE_integer(
    'num_processes', None, 'Processes in all, with --coordinator.', 1
  )
  index = flags.DEFINE_integer(
    'process_id', None, 'Number of this process, from 0.', 0
  )

  def get() -> Processes | None:
    given = coordinator.value, count.value, index.value
    explicit = [value not in ('', None) for value in given]
    if any(explicit) and not all(explicit):
      raise UserError(
        '--coordinator=HOST:PORT, --num_processes=N and --process_id=I belong '
        'together: give all three, or --distributed for a cluster that says.'
      )
    if not (together.value or all(explicit)):
      return None
    if all(explicit) and index.value >= count.value:
      raise UserError(
        f'--process_id={index.value} must be below --num_processes='
        f'{count.value}.'
      )
    return Processes(*given)

  return get


def get_config(holder: flags.FlagHolder) -> ml_collections.ConfigDict:
  """The parsed configuration, locked.

  Args:
    holder: what `define_config` returned.

  Returns:
    The configuration with the command line's overrides.

  Raises:
    UserError: no `--config` was given, or its file does not exist.
  """
  try:
    config = holder.value
    if config is None:
      raise UserError(f'--config is needed: one of {_available_configs()}.')
    return config.lock()
  except OSError as error:
    raise UserError(_no_such_config(error)) from None


def _worth_reading(record: std_logging.LogRecord) -> bool:
  """Drops what libraries report of themselves.

  Orbax logs dozens of lines a checkpoint, and the traceback of every error that
  it raises as well: what it raises, we tell in our own words.
  """
  path = pathlib.Path(record.pathname)
  if path.is_relative_to(_PACKAGE) or 'site-packages' not in path.parts:
    return True
  return 'orbax' not in path.parts and record.levelno >= std_logging.WARNING


def _available_configs() -> str:
  paths = sorted(pathlib.Path().glob('configs/*.py'))
  hidden = ('__init__.py', 'base.py')
  return ', '.join(str(p) for p in paths if p.name not in hidden) or 'none here'


def _no_such_config(error: OSError) -> str:
  path = re.search(r'Attempted .*\n\s*(.*)', str(error))
  return (
    f'There is no configuration at {path[1] if path else str(error)!r}. '
    f'Give --config=FILE.py; in configs/ there are: {_available_configs()}.'
  )


def _parse_flags(argv: Sequence[str]) -> list[str]:
  try:
    return flags.FLAGS(argv)
  except BrokenPipeError:
    raise  # of --help, which is printed here
  except OSError as error:  # an override of a configuration that is not there
    _fail(_no_such_config(error))
  # ml_collections raises the last four for an unknown key or an ill value.
  except (
    flags.Error,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
  ) as error:
    _fail(_flag_sentence(error))


def _flag_sentence(error: Exception) -> str:
  """Keeps the sentence of what ml_collections wraps in reprs."""
  text = str(error).replace('\\n', '\n').replace("\\'", "'")
  meant = re.search(r'Did you mean "(.*)" instead of "(.*)"\?', text)
  if meant:
    return (
      f'The configuration has no key {meant[2]!r}. Did you mean {meant[1]!r}?'
    )
  lines = [line for line in text.splitlines() if line.strip()]
  if isinstance(error, flags.Error):
    if 'Traceback' in text:
      # A ValueError's sentence is a configuration's own.
      reason = lines[-1].removeprefix('ValueError: ')
      return f'--config cannot be loaded: {reason}'
    return ' '.join(lines)
  key = ' '.join(lines).strip('"')
  return f'The configuration has no key {key}; configs/base.py lists them all.'


def _fail(message: str) -> None:
  print(f'error: {message}', file=sys.stderr)
  sys.exit(USER_ERROR)
