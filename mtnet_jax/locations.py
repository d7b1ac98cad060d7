"""Tells paths of this machine from paths on a bucket.

The folder of a run may lie on a bucket of Google Cloud Storage. There a path is
an `epath.Path`, elsewhere a `pathlib.Path`; what uses them is the same.
"""

import contextlib
import importlib.util
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from mtnet_jax.errors import UserError

# A `pathlib.Path`, or an `epath.Path` of a bucket.
Path = Any

# TensorFlow is hidden from epath: to load it takes seconds and much memory.
os.environ.setdefault('EPATH_USE_TF', 'false')

_BUCKET = 'gs://'
# The advice for files that must be on this machine.
MOUNT = (
  'mount the bucket with gcsfuse, records and videos read-only, and name the '
  'mounted folder (docs/scale.md)'
)
_RIGHTS = (
  'Name a bucket that exists and on which this account may list, read, write '
  'and delete objects (docs/scale.md).'
)
# pathlib makes `gs:/` of `gs://`.
_URL = re.compile(r'[a-zA-Z][\w+.-]*://|gs:/')
# Words of TensorStore for a bucket that is out of reach.
_REFUSED = re.compile(
  'UNAVAILABLE|UNAUTHENTICATED|PERMISSION_DENIED|DEADLINE_EXCEEDED|'
  'RESOURCE_EXHAUSTED|Forbidden'
)


class BucketError(UserError, OSError):
  """A bucket cannot be read or written."""


def on_bucket(path: str | os.PathLike) -> bool:
  """Returns whether a path is one of Google Cloud Storage."""
  return os.fspath(path).startswith(_BUCKET)


def local_path(path: str | os.PathLike) -> pathlib.Path:
  """Returns the path of a file or folder that cannot be on a bucket.

  Raises:
    UserError: it is the address of something elsewhere.
  """
  if _URL.match(os.fspath(path)):
    raise UserError(
      f'{os.fspath(path)} is no path of this machine, and only the folder of a '
      f'run (--workdir) may be on a bucket, as {_BUCKET}BUCKET/FOLDER: {MOUNT}.'
    )
  return pathlib.Path(path)


def as_path(path: str | os.PathLike) -> Path:
  """Returns the path of a run's folder, or of a file in one.

  Args:
    path: a path of this machine, or `gs://BUCKET/FOLDER`.

  Raises:
    UserError: it is another address, the bucket cannot be read, or what reads
      buckets is not installed.
  """
  if not on_bucket(path):
    return local_path(path)
  if isinstance(path, pathlib.PurePath):
    return path
  if importlib.util.find_spec('gcsfs') is None:
    raise UserError(
      f'{path} is on a bucket, which takes more packages: '
      'pip install "mtnet_jax[gcs]".'
    )
  import fsspec
  from etils import epath

  # Other libraries write to the bucket too, such as TensorStore.
  fsspec.config.conf.setdefault('gcs', {})['use_listings_cache'] = False
  found = epath.Path(path)
  if len(found.parts) < 4:  # /, gs, the bucket, the folder
    raise UserError(f'{path} names no folder: give {_BUCKET}BUCKET/FOLDER.')
  with telling_refusal(found), contextlib.suppress(FileNotFoundError):
    found.stat()
  return found


def absolute(path: str | os.PathLike) -> Path:
  """Returns `as_path(path)`, whatever the current folder will be."""
  path = as_path(path)
  return path if on_bucket(path) else path.absolute()


def cause(error: Exception) -> str:
  """Returns in words why a file cannot be read."""
  if isinstance(error, FileNotFoundError):
    return 'No such file or directory'
  return getattr(error, 'strerror', None) or str(error) or repr(error)


def is_refusal(error: Exception) -> bool:
  """Returns whether a bucket is out of reach, not the file on it damaged."""
  if isinstance(error, OSError | ValueError):
    return bool(_REFUSED.search(str(error)))
  libraries = 'gcsfs', 'aiohttp', 'google.api_core', 'google.auth'
  return type(error).__module__.startswith(libraries)


def refused(path: str | os.PathLike, why: str) -> BucketError:
  """Returns the error for a bucket that cannot be used."""
  why = ' '.join(why.split()).rstrip('.')
  return BucketError(f'{path} cannot be used: {why}. {_RIGHTS}')


@contextlib.contextmanager
def telling_refusal(path: Path) -> Iterator[None]:
  """Raises a `BucketError` where a bucket refuses access below `path`.

  A `FileNotFoundError` passes, and everything where `path` is on no bucket.
  """
  try:
    yield
  except Exception as error:
    is_one = isinstance(error, OSError) or is_refusal(error)
    missing = isinstance(error, FileNotFoundError)
    if missing or not is_one or not on_bucket(path):
      raise
    raise refused(path, cause(error)) from error
