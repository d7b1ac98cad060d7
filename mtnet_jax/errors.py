"""The one exception that a person can mend."""


class UserError(ValueError):
  """Something that the user gave is wrong, and the message says how to mend it.

  A message states what is wrong, what was given, what is allowed and what to
  do. Entry points print it as one sentence and exit with code 2.
  """
