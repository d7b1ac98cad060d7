"""Where a command writes, looked at before it works for minutes."""

import os
import pathlib

from mtnet_jax.checkpoints import make_workdir
from mtnet_jax.errors import UserError


def file_path(path: str | pathlib.Path) -> pathlib.Path:
  """Returns where a file goes, its folder made if need be.

  Args:
    path: of the file, which may be there already.

  Raises:
    UserError: it cannot be written.
  """
  path = pathlib.Path(path)
  make_workdir(path.parent)
  if path.is_dir():
    raise UserError(f'{path} is a folder: remove it, or name another file.')
  if path.exists() and not os.access(path, os.W_OK):
    raise UserError(
      f'{path} cannot be written: name a file that you may write to.'
    )
  return path


def png_path(path: str | pathlib.Path) -> pathlib.Path:
  """Returns where a picture goes, its folder made if need be.

  Args:
    path: of the picture, as a user gave it.

  Raises:
    UserError: it does not end in `.png`, or cannot be written.
  """
  path = pathlib.Path(path)
  if path.suffix != '.png':
    raise UserError(
      f'The picture {path} would not be a PNG: name a file that ends in .png.'
    )
  return file_path(path)
