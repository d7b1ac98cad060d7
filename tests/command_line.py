"""Command lines in this process, which does not end with them."""

import contextlib
import dataclasses
import io
from unittest import mock

from absl import logging

from mtnet_jax import cli
from mtnet_jax.devices import host_memory


@dataclasses.dataclass(frozen=True)
class Done:
  """What a process would have left: its exit code, and what it printed."""

  code: int
  stdout: str
  stderr: str


def run(command: cli.Command, *argv) -> Done:
  """Does what a command line says.

  An exception that a real process would end with, and a traceback, is raised.
  What it would settle for the rest of a process is left, or put back.

  Args:
    command: the command.
    *argv: flags and arguments of the command, of any type that `str` takes.
  """
  out, error = io.StringIO(), io.StringIO()
  verbosity = logging.get_verbosity()
  try:
    with (
      contextlib.redirect_stdout(out),
      contextlib.redirect_stderr(error),
      mock.patch.object(host_memory, 'keep_freed_memory'),
    ):
      code = cli.call(command, *map(str, argv))
  finally:
    logging.set_verbosity(verbosity)
  return Done(code, out.getvalue(), error.getvalue())
