"""Finds the videos below a folder, and says what is left out and why.

A video is a file, or a folder of numbered images.

Training, preparation and prediction use it, so that a folder holds the same
videos for all of them.
"""

import collections
import dataclasses
import os
import stat
from collections.abc import Mapping, Sequence

from absl import logging

from mtnet_jax.data import numbered_images
from mtnet_jax.errors import UserError, printable

# Endings of files in a folder that are taken for videos.
VIDEO_SUFFIXES = tuple(
  '.264 .265 .3g2 .3gp .3gp2 .3gpp .3gpp2 .amv .asf .avi .dav .divx .dv .f4v '
  '.flv .gxf .h264 .h265 .hevc .insv .ivf .lrv .m1v .m2p .m2t .m2ts .m2v .m4v '
  '.mjpeg .mjpg .mk3d .mkv .mod .mov .mp2v .mp4 .mp4v .mpe .mpeg .mpeg4 '
  '.mpegts .mpg .mpv .mts .mxf .nut .ogm .ogv .ogx .qt .rm .rmvb .tod .tp .trp '
  '.ts .vob .vro .webm .wmv .wtv .xvid .y4m'.split()
)
# Names that systems, programs and network disks leave behind, in small letters.
_SYSTEM_NAMES = frozenset(
  [
    '#recycle',
    '#snapshot',
    '$recycle.bin',
    '@eadir',
    '@recently-snapshot',
    '@recycle',
    '@sharebin',
    '@tmp',
    '__macosx',
    '__pycache__',
    'desktop.ini',
    'ehthumbs.db',
    'ehthumbs_vista.db',
    'icon\r',
    'lost+found',
    'recycler',
    'system volume information',
    'thumbs.db',
  ]
)
_MAX_NAMED = 3
_MAX_DEPTH = 100  # folders in folders

# A file's place: the names of the folders above it, and its own.
Place = tuple[str, ...]

HIDDEN = 'hidden (the name begins with a dot)'
SYSTEM = "a system's or a network disk's own"
ENDING = 'files that do not end as videos do'
FLOW = 'images of optical flow'
SERIES = 'images of several series in one folder'
BESIDE = 'numbered images beside videos'
BESIDE_FILES = 'folders of images beside video files'
SPECIAL = 'neither files nor folders'
KNOWN = 'links to folders that are there already'
EMPTY = 'folders without a video'
DEEP = f'folders more than {_MAX_DEPTH} deep'


class LeftOut:
  """Files that are not taken for data: counts and first names, by reason."""

  def __init__(self):
    """Begins with nothing."""
    self._counts = collections.Counter()
    self._first = collections.defaultdict(list)
    self._endings = collections.Counter()

  def add(self, reason: str, place: Place) -> None:
    """Counts a file or a folder, which is named if it is among the first.

    Args:
      reason: the reason why it is left out, in words that may follow a number.
      place: the names of the folders above it, and its own.
    """
    self._counts[reason] += 1
    if len(self._first[reason]) < _MAX_NAMED:
      self._first[reason].append(printable('/'.join(place)))
    if reason == ENDING:
      suffix = os.path.splitext(place[-1])[1].lower()
      self._endings[printable(suffix) or 'no ending'] += 1

  def __bool__(self) -> bool:
    return bool(self._counts)

  def describe(self) -> str:
    """Returns reasons, numbers and the first names, in one line."""
    return '; '.join(
      f'{count} {reason}{self._kinds(reason)}: '
      f'{", ".join(self._first[reason])}{", …" * (count > _MAX_NAMED)}'
      for reason, count in self._counts.items()
    )

  def tell(self, where: object) -> None:
    """Logs a warning if there is anything; a command shows it once.

    Args:
      where: the folder, as the user knows it.
    """
    if self:
      logging.warning(
        '%s: left out are %s', where, self.describe(), extra={'once': True}
      )

  def _kinds(self, reason: str) -> str:
    if reason != ENDING:
      return ''
    most = self._endings.most_common(_MAX_NAMED)
    more = len(self._endings) - len(most)
    kinds = [f'{ending} {count}' for ending, count in most]
    kinds += [f'{more} other endings'] * (more > 0)
    return f' ({", ".join(kinds)})'


@dataclasses.dataclass(frozen=True)
class Contents:
  """The videos and other files below a folder.

  Attributes:
    videos: the places of the videos, by name. Links that lead nowhere are among
      them: whoever reads them tells that.
    frame_folders: the places among `videos` that are folders of numbered
      images.
    left_out: everything else.
    unreadable: folders that cannot be read, each with the cause.
  """

  videos: Sequence[Place]
  frame_folders: Sequence[Place]
  left_out: LeftOut
  unreadable: Mapping[str, str]

  def tell(self, where: object) -> None:
    """Logs a warning of what is left out, and of videos of two kinds.

    Args:
      where: the folder, as the user knows it.
    """
    self.left_out.tell(where)
    count = len(self.frame_folders)
    if 0 < count < len(self.videos):
      logging.warning(
        '%s: of %d videos %d are folders of numbered images, such as %s',
        where,
        len(self.videos),
        count,
        printable('/'.join(self.frame_folders[0])),
        extra={'once': True},
      )

  def check_readable(self) -> None:
    """Raises a UserError where a folder cannot be read."""
    for path, cause in self.unreadable.items():
      raise UserError(
        f'The folder {path} cannot be read: {cause}. Allow it to be read, or '
        'move it away.'
      )


def decoded(name: str) -> str:
  """Returns a file's name with bytes that are not UTF-8 written out: \\xe9."""
  return os.fsencode(name).decode('utf-8', 'backslashreplace')


def is_video_name(name: str) -> bool:
  """Returns whether a file of a folder is taken for a video, by its name."""
  return name.lower().endswith(VIDEO_SUFFIXES)


def why_not_data(name: str) -> str:
  """Returns why a file or a folder of this name is never data, or ''."""
  if name.startswith('.'):
    return HIDDEN
  return SYSTEM if name.lower() in _SYSTEM_NAMES else ''


def search(folder: str | os.PathLike, known: Sequence[str] = ()) -> Contents:
  """Looks for videos in a folder and in those below it.

  A folder of numbered images is a video, unless there are videos beside or
  below them, or just one image, or video files beside the folder. Links are
  followed. Of a folder that several links lead to, each of the first two levels
  of folders has the videos once; a link to a folder above it has none.

  Args:
    folder: an existing folder, whatever its own name.
    known: names of files in it that are no videos, and have their use.

  Returns:
    The videos, and what is left out. If the folder itself is one, its place is
    empty.
  """
  walk = _Walk(known)
  walk.enter(os.fspath(folder), (), ())
  return Contents(
    tuple(sorted(walk.videos)),
    tuple(sorted(walk.frame_folders)),
    walk.left_out,
    walk.unreadable,
  )


class _Walk:
  """A walk through folders, and what it has found."""

  def __init__(self, known: Sequence[str]):
    self.videos, self.frame_folders = [], set()
    self.left_out, self.unreadable = LeftOut(), {}
    self._known, self._seen = known, set()

  def enter(self, path: str, place: Place, above: tuple) -> bool:
    """Looks into a folder; returns whether there is anything to tell of it."""
    try:
      status = os.stat(path)
      with os.scandir(path) as entries:
        entries = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
      self.unreadable[path] = error.strerror or str(error)
      return True
    own = status.st_dev, status.st_ino
    known = own in above or (place[:2], own) in self._seen
    if known or len(place) > _MAX_DEPTH:
      self.left_out.add(KNOWN if known else DEEP, place)
      return True
    self._seen.add((place[:2], own))
    told, files, empty, images = False, False, [], []
    before = len(self.videos)
    for entry in entries:
      there = *place, entry.name
      if reason := why_not_data(entry.name):
        self.left_out.add(reason, there)
      elif _is_numbered_image(entry):
        images.append(entry.name)
      elif not is_folder(entry):
        files |= self._add_file(entry, there)
      elif self.enter(entry.path, there, (*above, own)):
        told = True
      else:
        empty.append(there)
    told |= self._add_images(images, place, len(self.videos) == before)
    if files:
      told = True
      self._drop_frame_folders(place, before)
    if told or not place:  # else the folder above tells of all of them
      for there in empty:
        self.left_out.add(EMPTY, there)
    return told

  def _add_images(
    self, images: Sequence[str], place: Place, alone: bool
  ) -> bool:
    """Takes a folder's numbered images as a video, or leaves them out."""
    groups = [*numbered_images.group(images).values()]
    series = groups[0] if alone and len(groups) == 1 else ()
    # A single one is a picture.
    frames = {image.name for image in series} if len(series) > 1 else set()
    if frames:
      self.videos.append(place)
      self.frame_folders.add(place)
    if len(images) == 1:
      reason = ENDING
    else:
      reason = FLOW if frames else SERIES if alone else BESIDE
    for name in images:
      if name not in frames:
        self.left_out.add(reason, (*place, name))
    return bool(frames)

  def _drop_frame_folders(self, place: Place, before: int) -> None:
    """Leaves out the folders of images in a folder, which has video files.

    They may be anything: previews of the videos, for instance.
    """
    below = self.videos[before:]
    own = self.frame_folders.intersection(below)
    dropped = {video for video in own if video[:-1] == place}
    self.videos[before:] = [v for v in below if v not in dropped]
    self.frame_folders -= dropped
    for video in sorted(dropped):
      self.left_out.add(BESIDE_FILES, video)

  def _add_file(self, entry: os.DirEntry, place: Place) -> bool:
    """Takes a file in or leaves it out; returns whether it is a video."""
    if len(place) == 1 and entry.name in self._known:
      return False
    if not is_video_name(entry.name):
      self.left_out.add(ENDING, place)
      return False
    if not _is_special(entry):
      self.videos.append(place)
      return True
    self.left_out.add(SPECIAL, place)
    return False


def is_folder(entry: os.DirEntry) -> bool:
  """Returns whether a path is a folder, or a link that leads to one."""
  try:
    return entry.is_dir()
  except OSError:  # a link to itself
    return False


def _is_numbered_image(entry: os.DirEntry) -> bool:
  return bool(numbered_images.parse(entry.name)) and not is_folder(entry)


def _is_special(entry: os.DirEntry) -> bool:
  """Returns whether a path exists and is no file, but perhaps a pipe."""
  try:
    return not stat.S_ISREG(entry.stat().st_mode)
  except OSError:  # a link that leads nowhere
    return False
