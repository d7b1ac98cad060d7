"""Runs commands: parses flags, and prints a mistake as one sentence."""

import contextlib
import copy
import dataclasses
import itertools
import logging as std_logging
import os
import pathlib
import re
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from mtnet_jax import files, locations, recipes
from mtnet_jax.errors import RESUME, USER_ERROR, UserError, printable

_PACKAGE = pathlib.Path(__file__).resolve().parent
# The checkpoints of a run that have a name.
CHECKPOINTS = ('best', 'last')
_INTERRUPTED = 128 + signal.SIGINT
_BROKEN_PIPE = 128 + signal.SIGPIPE
# A path begins, as an argument or behind `=`, where shells do not expand it.
_HOME = re.compile(r'(^|=)(~|~[^/=]+(?=/))(?=/|$)')


@dataclasses.dataclass(frozen=True)
class Command:
  """A command: its flags, and the function that does the work.

  Attributes:
    main: a function of the parsed flags and of the arguments that are no flags.
      It returns the process's exit code, None for 0. What it raises as
      `UserError`, and every mistake in the flags, is printed to stderr as one
      sentence and ends the process with code 2. Any other exception is a defect
      of ours and keeps its traceback.
    define_flags: declares the command's flags in the values that it is given.
    takes_arguments: whether arguments that are no flags, such as files, are
      allowed; else they are a mistake.
    resumes: whether the command, interrupted and given again, goes on where it
      stopped.
  """

  main: Callable[[flags.FlagValues, Sequence[str]], int | None]
  define_flags: Callable[[flags.FlagValues], None]
  takes_arguments: bool = False
  resumes: bool = False


@contextlib.contextmanager
def reader_may_leave() -> Iterator[None]:
  """Ends the process quietly where nobody reads stdout any more.

  It ends as other programs do, with code 141 and without a word.
  """
  try:
    try:
      yield
    finally:
      sys.stdout.flush()
  except BrokenPipeError:
    if not _nobody_reads(sys.stdout.fileno()):
      raise  # another pipe's, a loader process's for instance
    _drop_unwritten()
    sys.exit(_BROKEN_PIPE)
  except OSError as error:
    if error.errno not in files.NO_ROOM:
      raise
    _fail_for_room(error)


@reader_may_leave()
def run(command: Command) -> None:
  """Runs the command with this process's command line, and ends the process."""
  _declare(command, flags.FLAGS)
  # Names may hold characters that this terminal cannot show; they must not stop
  # a command.
  sys.stdout.reconfigure(errors='backslashreplace')
  app.run(
    lambda argv: sys.exit(_execute(command, flags.FLAGS, argv[1:])),
    flags_parser=lambda argv: _parse(flags.FLAGS, argv),
  )


def call(command: Command, *argv: str) -> int:
  """Runs the command with a command line, without ending this process.

  Args:
    command: the command.
    *argv: flags and arguments, without the command's name.

  Returns:
    The exit code that the process would have ended with.
  """
  values = flags.FlagValues()
  # ml_collections looks for a configuration's keys in `sys.argv`.
  before, sys.argv = sys.argv, ['', *argv]
  try:
    with _telling_mistakes(sys.argv):
      command.define_flags(values)
    arguments = _parse(values, sys.argv)[1:]
    return _execute(command, values, arguments)
  except SystemExit as end:
    return end.code or 0
  finally:
    sys.argv = before


def _declare(command: Command, values: flags.FlagValues) -> None:
  """Declares the flags, and makes --help show them below the command's text."""
  before = set(values)
  # If --config has a default, its keys are set here.
  with _telling_mistakes(sys.argv):
    command.define_flags(values)
  for name in set(values) - before:
    values.register_key_flag_for_module(sys.argv[0], values[name])
  module = sys.modules[command.main.__module__]
  sys.modules['__main__'].__doc__ = module.__doc__


def _execute(
  command: Command, values: flags.FlagValues, arguments: Sequence[str]
) -> int:
  logging.set_verbosity(logging.INFO)
  # In a notebook, records go to handlers that are not ours.
  logging.get_absl_logger().filters[:] = [_worth_reading]
  handler = logging.get_absl_handler()
  handler.filters[:] = [_worth_reading, _Once()]
  handler.setFormatter(_Formatter())
  sys.unraisablehook = _tell_unraisable
  if arguments and not command.takes_arguments:
    _fail(f'{arguments[0]!r} is not a flag: flags begin with `--`.')
  try:
    return command.main(values, arguments) or 0
  except UserError as error:
    resumes = command.resumes and error.code == RESUME
    _fail(f'{error}{" The same command resumes." * resumes}', error.code)
  except Exception as error:
    if getattr(error, 'errno', None) in files.NO_ROOM:
      _fail_for_room(error)
    if locations.is_refusal(error):
      _fail(str(locations.refused('The bucket', str(error))))
    raise
  except KeyboardInterrupt:
    hint = '; the same command resumes' if command.resumes else ''
    print(f'Interrupted{hint}.', file=sys.stderr)
    sys.exit(_INTERRUPTED)


def _fail_for_room(error: OSError) -> NoReturn:
  _drop_unwritten()
  what = repr(error.filename) if error.filename else 'what is printed'
  _fail(
    f'{error.strerror}: {what}. '
    f'{files.NO_ROOM[error.errno]} and give the same command again.'
  )


def _drop_unwritten() -> None:
  """Drops output that stdout refuses, and would refuse again at the end."""
  try:
    sys.stdout.flush()
  except OSError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _nobody_reads(pipe: int) -> bool:
  """Returns whether the reader of a pipe, `head` perhaps, is gone."""
  poll = select.poll()
  poll.register(pipe, 0)
  return any(event & select.POLLERR for _, event in poll.poll(0))


def define_config(
  values: flags.FlagValues,
  default: str | None = None,
  meaning: str = 'Recipe of the run.',
) -> None:
  """Declares `--config=NAME[:argument]` and `--config.KEY=VALUE`.

  Args:
    values: the flag values to declare the flags in.
    default: a configuration's name, or None.
    meaning: the beginning of the flag's help: what the configuration is for.
  """
  config_flags.DEFINE_config_file(
    'config',
    None,
    f'{meaning} A name such as quickstart or srtg:r3d_34, or a FILE.py. '
    '--config.KEY=VALUE changes a value.',
    flag_values=values,
  )
  values['config'].parser = recipes.Parser('config')
  values.set_default('config', default)


def define_run(
  values: flags.FlagValues, workdir: str = 'Folder of the run to use.'
) -> None:
  """Declares `--workdir` and `--checkpoint`: the weights of a run to use.

  Args:
    values: the flag values to declare the flags in.
    workdir: the help of `--workdir`.
  """
  flags.DEFINE_string(
    'workdir', None, workdir, required=True, flag_values=values
  )
  flags.DEFINE_enum(
    'checkpoint',
    'best',
    CHECKPOINTS,
    'Checkpoint whose weights are used: the best by the top-1 of its '
    'validation, or the last.',
    flag_values=values,
  )


def get_config(values: flags.FlagValues) -> ml_collections.ConfigDict:
  """Returns the parsed configuration with its overrides, locked.

  Args:
    values: the flags of a command line for which `define_config` declared the
      flag.

  Raises:
    UserError: no `--config` was given, or its file does not exist.
  """
  try:
    config = values.config
    if config is None:
      raise UserError(f'--config is needed: one of {recipes.available()}.')
    with config.unlocked():
      _expand_homes(config)
    return config.lock()
  except OSError as error:
    raise UserError(_no_such_config(error)) from None


def _expand_home(text: str) -> str:
  """Returns an argument with the user's folder in the place of `~`."""
  return _HOME.sub(lambda m: m[1] + os.path.expanduser(m[2]), text)


def _expand_homes(config: ml_collections.ConfigDict) -> None:
  """Does the same for the values that a file of configuration has."""
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      _expand_homes(value)
    elif isinstance(value, str) and value.startswith('~'):
      config[key] = _expand_home(value)


def _tell_unraisable(left: Any) -> None:
  """Drops the errors that follow a failed write of Orbax, which is reported.

  It writes arrays side by side, in tasks of a loop that ends with the first
  error; the others then find it closed.
  """
  if 'Event loop is closed' not in str(left.exc_value):
    sys.__unraisablehook__(left)


def _worth_reading(record: std_logging.LogRecord) -> bool:
  """Drops what libraries log about their own work.

  Orbax logs dozens of lines a checkpoint. It and the libraries that read
  buckets also log the traceback of every error that they raise, which commands
  report in one sentence.
  """
  path = pathlib.Path(record.pathname)
  if path.is_relative_to(_PACKAGE) or 'site-packages' not in path.parts:
    return True
  talkative = {'orbax', 'gcsfs', 'google'}.intersection(path.parts)
  return not talkative and record.levelno >= std_logging.WARNING


class _Once(std_logging.Filter):
  """Drops records that a command has logged already and marked `once`."""

  def __init__(self):
    super().__init__()
    self._told = set()

  def filter(self, record: std_logging.LogRecord) -> bool:
    """Returns whether the record is new, or may be repeated."""
    message = record.getMessage()
    known = getattr(record, 'once', False) and message in self._told
    self._told |= {message} if getattr(record, 'once', False) else set()
    return not known


class _Formatter(logging.PythonFormatter):
  """Escapes control characters: names may hold anything."""

  def format(self, record: std_logging.LogRecord) -> str:
    """Returns the line, or lines where the message itself has several."""
    record = copy.copy(record)
    if isinstance(record.args, tuple):
      # A file's name must not start a new line.
      record.args = tuple(map(_printable_argument, record.args))
    return '\n'.join(map(printable, super().format(record).split('\n')))


def _printable_argument(argument: object) -> object:
  if isinstance(argument, str | os.PathLike | Exception):
    return printable(str(argument))
  return argument


def _no_such_config(error: OSError) -> str:
  path = re.search(r'Attempted .*\n\s*(.*)', str(error))
  return (
    f'There is no configuration at {path[1] if path else str(error)!r}. '
    f'Give --config=FILE.py, or one of these: {recipes.available()}.'
  )


def _parse(values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
  with _telling_mistakes(argv):
    argv = values.read_flags_from_files(argv, force_gnu=False)
    return values([_expand_home(argument) for argument in argv])


@contextlib.contextmanager
def _telling_mistakes(argv: Sequence[str]) -> Iterator[None]:
  """Ends the process with a sentence for a mistake in its flags."""
  try:
    yield
  except BrokenPipeError:
    raise  # of --help, which is printed here
  except SystemExit:  # after --help, and absl would have it be a failure
    sys.exit()
  except flags.UnrecognizedFlagError as error:
    _fail(_dashed_file(argv[1:]) or _flag_sentence(error))
  except OSError as error:  # an override of a configuration that is not there
    if error.errno in files.NO_ROOM:  # for --help
      _fail_for_room(error)
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


def _dashed_file(arguments: Sequence[str]) -> str:
  """Returns advice for a file that is taken for a flag, or ''."""
  for argument in itertools.takewhile(lambda a: a != '--', arguments):
    if not argument.startswith('-'):
      continue
    suffix = os.path.splitext(argument)[1]
    flag = argument.startswith('--') or '=' in argument or not suffix
    if not flag or os.path.lexists(argument):
      return (
        f'{argument} begins with a dash and is taken for a flag. If it is a '
        f'file, write ./{argument}, or put -- before it and all other files.'
      )
  return ''


def _flag_sentence(error: Exception) -> str:
  """Extracts the sentence from an error of ml_collections."""
  text = str(error).replace('\\n', '\n').replace("\\'", "'")
  meant = re.search(r'Did you mean "(.*)" instead of "(.*)"\?', text)
  if meant:
    return (
      f'The configuration has no key {meant[2]!r}. Did you mean {meant[1]!r}?'
    )
  lines = [line for line in text.splitlines() if line.strip()]
  if isinstance(error, flags.Error):
    if 'Traceback' in text:
      # The sentence of a ValueError comes from the configuration itself.
      reason = lines[-1].removeprefix('ValueError: ')
      return f'--config cannot be loaded: {reason}'
    return ' '.join(lines)
  key = ' '.join(lines).strip('"')
  defaults = recipes.defaults_file()
  return f'The configuration has no key {key}; {defaults} lists them all.'


def _fail(message: str, code: int = USER_ERROR) -> NoReturn:
  with contextlib.suppress(OSError):  # stderr may lie on the full disk itself
    print(f'error: {printable(message)}', file=sys.stderr)
  sys.exit(code)
