"""Finds and opens the videos of a user: files, folders, patterns, arrays."""

import glob
import os
import pathlib
from collections.abc import Iterable

import numpy as np

from mtnet_jax import locations
from mtnet_jax.data import folders, opening
from mtnet_jax.data.frame_folders import FrameFolderReader
from mtnet_jax.data.video import VideoError, VideoReader
from mtnet_jax.data.views import ArrayReader
from mtnet_jax.errors import UserError

Video = str | os.PathLike | np.ndarray

ARRAY_SUFFIX = '.npy'


class InputError(UserError):
  """An error of one video; others may still be classified."""


def find_videos(
  names: Iterable[str],
) -> tuple[list[str], list[tuple[str, str]]]:
  """Finds the videos that a command's arguments name.

  Args:
    names: paths of files, of folders (all videos below, by their suffixes, and
      folders of numbered images; nothing hidden), or patterns with `*`, `?`,
      `[…]` and `**`, each match of which counts as if it had been given itself.

  Returns:
    The videos, each once, as given and within folders by name; and the names
    that lead to none, with the reason.
  """
  found, missing = [], []
  for name in names:
    matches = [name]
    if not os.path.lexists(name) and glob.has_magic(name):
      given = pathlib.Path(name).parts
      matches = [
        match
        for match in sorted(glob.glob(name, recursive=True))
        if not any(
          part not in given and folders.why_not_data(part)
          for part in pathlib.Path(match).parts
        )
      ]
    if locations.on_bucket(name):
      matches = [name]  # which `open_video` refuses
    if not matches:
      hint = '; a bracket of a name is written [[]' if '[' in name else ''
      missing.append((name, f'no file matches this pattern{hint}'))
    for match in matches:
      if os.path.isdir(match):
        missing += _search(match, found)
      else:
        found.append(match)
  return list(dict.fromkeys(found)), missing


def open_video(
  video: Video, fps: float | None = None
) -> VideoReader | FrameFolderReader | ArrayReader:
  """Opens a video; a context manager.

  Args:
    video: a video file, a folder of numbered images, an `.npy` file, or an
      array: uint8 `(t, h, w, 3)`, RGB frames from 0 to 255.
    fps: images per second of a folder.

  Raises:
    InputError: it cannot be read.
  """
  if isinstance(video, np.ndarray):
    return _array_reader(video, 'the array')
  if not isinstance(video, str | os.PathLike):
    raise InputError(
      f'A video is a path or a numpy array, given {type(video).__name__}.'
    )
  name = os.fsdecode(video)
  if locations.on_bucket(name):
    raise InputError(f'{name} cannot be read: {locations.MOUNT}.')
  if name.lower().endswith(ARRAY_SUFFIX):
    return _array_reader(_load_array(name), name)
  try:
    if os.path.isdir(name):
      return FrameFolderReader(name, fps=fps)
    return VideoReader(name)
  except VideoError as error:
    raise unreadable(error) from error


def unreadable(error: VideoError) -> InputError:
  """Returns the error of an unreadable video as a mistake of the user."""
  return InputError(f'{error.name} cannot be read: {error.cause}.')


def _search(folder: str, found: list[str]) -> list[tuple[str, str]]:
  """Adds a folder's videos; returns folders without any, with the reason."""
  contents = folders.search(folder)
  contents.tell(folder)
  found += [str(pathlib.Path(folder, *place)) for place in contents.videos]
  missing = [
    (path, f'this folder cannot be read: {cause}')
    for path, cause in contents.unreadable.items()
  ]
  if not contents.videos and not missing:
    rest = contents.left_out.describe()
    reason = f', and left out are {rest}' if rest else ''
    missing = [(folder, f'there is no video in this folder{reason}')]
  return missing


def _array_reader(frames: np.ndarray, name: str) -> ArrayReader:
  try:
    return ArrayReader(frames, name)
  except UserError as error:
    raise InputError(str(error)) from None


def _load_array(path: str) -> np.ndarray:
  """Maps the array of a file, so that only what is needed is read."""
  try:
    opening.check_regular(path)
    array = np.load(path, mmap_mode='r', allow_pickle=False)
  except Exception as error:  # numpy raises anything of a damaged header
    cause = getattr(error, 'strerror', None) or str(error) or repr(error)
    raise InputError(f'{path} cannot be read: {cause.rstrip(".")}.') from error
  if not isinstance(array, np.ndarray):
    raise InputError(
      f'{path} is an archive of arrays. Save one with numpy.save.'
    )
  return array
