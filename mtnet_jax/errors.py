"""Errors for users, the codes that commands end with, and printable names."""

import os
from collections.abc import Iterable

# A mistake that the user can mend.
USER_ERROR = 2
# The same command resumes where this one stopped; sysexits.h's EX_TEMPFAIL.
RESUME = os.EX_TEMPFAIL


class UserError(ValueError):
  """An error in what the user gave; the message says how to mend it.

  A message states what is wrong, what was given, what is allowed and what to
  do. Commands print it as one sentence and end with code 2, or `code`.

  Attributes:
    known_to_all: whether all processes of the run raise it, so that none has to
      find out which of them has failed.
    code: the exit code of a command that ends with it.
  """

  known_to_all = False
  code = USER_ERROR


class Interruption(UserError):
  """An end of the work from outside, which the same command resumes."""

  code = RESUME


def first_causes(causes: Iterable[tuple[str, str]]) -> str:
  """Returns the first three of some names with their causes: 'a: b; c: d'.

  Args:
    causes: names, and why each of them failed.
  """
  named = [f'{name}: {cause}' for name, cause in causes]
  return '; '.join(named[:3])


def printable(text: str) -> str:
  """Returns a file's or class's name with its control characters escaped.

  Control characters, and bytes that are not UTF-8, are written out: `\\x1b`.
  """
  return ''.join(
    c if c.isprintable() else c.encode('unicode_escape').decode() for c in text
  )
