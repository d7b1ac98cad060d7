"""Explains errors of a device that is out of memory."""

import contextlib
import re
from collections.abc import Iterator

import jax

from mtnet_jax.errors import UserError

# What compilers say of a whole program, and allocators of a single array.
_SAID = (
  re.compile(
    r'required .*\((?P<needed>[\d.]+\w+)\) exceeds .*\((?P<there>[\d.]+\w+)\)'
  ),
  re.compile(r'Used (?P<needed>[\d.]+\w+) of (?P<there>[\d.]+\w+) hbm'),
  re.compile(
    r'to allocate (?P<needed>[\d.]+ ?\w+)\..*?(?P<there>[\d.]+ ?\w+) free', re.S
  ),
  re.compile(r'(allocat\w+|request for) (?P<needed>[\d.]+ ?\w+)'),
)


@contextlib.contextmanager
def explained(mend: str) -> Iterator[None]:
  """Turns an exhausted device memory inside the context into one sentence.

  Args:
    mend: the remedy, as the end of the sentence "Give …".

  Raises:
    UserError: a device has too little memory for what is done inside.
  """
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if not is_exhausted(error):
      raise
    raise UserError(f'{describe(error)} Give {mend}.') from error


def is_exhausted(error: Exception) -> bool:
  """Returns whether an error says that a device's memory is not enough."""
  return 'RESOURCE_EXHAUSTED' in str(error)


def describe(error: Exception) -> str:
  """Returns a sentence: the memory needed and, if known, the memory there is.

  Args:
    error: an error for which `is_exhausted` is true.
  """
  text = str(error)
  found = next(filter(None, (said.search(text) for said in _SAID)), None)
  if found is None:
    first = text.splitlines()[0].rstrip('.')
    return f'A device has too little memory: {first}.'
  there = found.groupdict().get('there')
  if there:
    there = f'where there are {_amount(there)}'
  else:
    limit = (jax.local_devices()[0].memory_stats() or {}).get('bytes_limit')
    there = f'of {_amount(f"{limit} bytes")} in all' if limit else 'at once'
  return (
    f'A device has too little memory: {_amount(found["needed"])} were needed, '
    f'{there}.'
  )


def _amount(text: str) -> str:
  """Converts `17.05G` or `18307096576 bytes` to GB; other texts stay."""
  number, unit = re.fullmatch(r'([\d.]+) ?(\w+)', text).groups()
  scale = {'bytes': 1, 'B': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30}.get(
    unit if unit == 'bytes' else unit[0]
  )
  if not scale:
    return text
  amount = float(number) * scale / 1e9
  return f'{amount:,.0f} GB' if amount >= 100 else f'{amount:.3g} GB'
