"""Lists the objects in a PyTorch file beside tensors, without making any.

PyTorch refuses a file for one object of a class that it does not know, and does
not say under which key. Here each such class is replaced by one that does
nothing; PyTorch still loads with `weights_only=True`.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

_DEPTH = 6


class _Inert:
  """Stands for an object of a file; takes what it is given, and drops it."""

  def __new__(cls, *unused_args, **unused_kwargs):
    return super().__new__(cls)

  def __init__(self, *unused_args, **unused_kwargs):
    pass

  def __setstate__(self, state):
    pass


def foreign(torch: Any, path: pathlib.Path) -> dict[str, str]:
  """Returns the keys of a checkpoint that hold objects, and their classes.

  Args:
    torch: the module.
    path: a file that `torch.save` wrote.

  Returns:
    Classes by key, 'message_hub' for instance; {} where that cannot be told.
  """
  try:
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    inert = [(type(name, (_Inert,), {}), name) for name in names]
    with torch.serialization.safe_globals(inert):
      content = torch.load(path, map_location='meta', weights_only=True)
  except Exception:  # whatever torch says of what it cannot load even so
    return {}
  if not isinstance(content, Mapping):
    return {}
  found = {key: _class_in(value, _DEPTH) for key, value in content.items()}
  return {str(key): name for key, name in found.items() if name}


def _class_in(value: Any, depth: int) -> str:
  """Returns the class of an object in a value, or ''."""
  if isinstance(value, _Inert):
    return type(value).__name__
  if depth and isinstance(value, Mapping):
    value = [*value.keys(), *value.values()]
  if depth and isinstance(value, list | tuple | set):
    return next(filter(None, (_class_in(v, depth - 1) for v in value)), '')
  return ''
