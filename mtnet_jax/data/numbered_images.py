"""Finds and orders the files of a folder that are frames of one video.

A video may be a folder of images that have one name but for their number:
`img_00001.jpg`, `frame_000001.jpg`, `00001.png`.
"""

import collections
import itertools
import os
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mtnet_jax.errors import printable

# Endings of images, in small letters.
SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')

_NUMBERED = re.compile(r'(?!\.)(.*?)([0-9]+)', re.DOTALL)
# Optical flow, which may lie beside the frames and is no picture.
_FLOW = re.compile(r'(flow[_-]?)?[xyuv][_-]?', re.IGNORECASE)


class Image(NamedTuple):
  """The parts of a numbered image's name.

  Attributes:
    series: the name up to the number.
    number: the digits before the ending, as a number.
    suffix: the ending, in small letters.
    name: the file's.
  """

  series: str
  number: int
  suffix: str
  name: str


def parse(name: str) -> Image | None:
  """Returns the parts of a file's name; None for one that is not numbered."""
  stem, suffix = os.path.splitext(name)
  match = _NUMBERED.fullmatch(stem)
  if not match or suffix.lower() not in SUFFIXES:
    return None
  return Image(match[1], int(match[2]), suffix.lower(), name)


def group(names: Iterable[str]) -> dict[str, list[Image]]:
  """Returns the numbered images among some files, by series.

  Args:
    names: the names of the files of a folder.

  Returns:
    The images in no order. Optical flow (`flow_x_00001.jpg`) is not among them,
    if there is anything else.
  """
  found = collections.defaultdict(list)
  for image in filter(None, map(parse, names)):
    found[image.series].append(image)
  pictures = [series for series in found if not _FLOW.fullmatch(series)]
  return {series: found[series] for series in pictures or found}


def order(names: Iterable[str]) -> list[str]:
  """Returns the names of a video's frames, in order.

  Args:
    names: the names of the files of the video's folder. Files that are no
      numbered images are left out, and so is optical flow beside frames.

  Raises:
    ValueError: there is no frame, there are those of several videos, or one is
      missing; the message says so of 'it', the folder.
  """
  groups = group(names)
  if not groups:
    raise ValueError(
      'it is a directory that holds no numbered images, such as img_00001.jpg'
    )
  if len(groups) > 1:
    raise ValueError(
      'it is a directory of several series of images, such as '
      f"{_some(groups)}: a video's have one name but for their number"
    )
  ((_, images),) = groups.items()
  images.sort(key=lambda image: (image.number, image.name))
  _check(images)
  return [image.name for image in images]


def _check(images: Sequence[Image]) -> None:
  """Raises a ValueError where frames are not numbered one by one."""
  suffixes = sorted({image.suffix for image in images})
  if len(suffixes) > 1:
    raise ValueError(
      f'its images end in {" and ".join(suffixes)}: keep those of one kind'
    )
  numbers = [image.number for image in images]
  for one, other in itertools.pairwise(images):
    if one.number == other.number:
      raise ValueError(
        f'its images {printable(one.name)} and '
        f'{printable(other.name)} have one number: remove one'
      )
  if numbers[0] > 1:
    raise ValueError(
      f'its images are numbered from {numbers[0]} on, and not from 0 or 1: '
      'copy those before, or number them anew'
    )
  missing = numbers[-1] - numbers[0] + 1 - len(numbers)
  if missing:
    there = set(numbers)
    first = next(n for n in range(numbers[0], numbers[-1]) if n not in there)
    raise ValueError(
      f'its images are numbered from {numbers[0]} to {numbers[-1]}, and '
      f'{missing} of them {"is" if missing == 1 else "are"} missing, the first '
      f'is number {first}: copy it, or number them anew'
    )


def _some(groups: dict[str, list[Image]]) -> str:
  first = [min(image.name for image in images) for images in groups.values()]
  return ' and '.join(map(printable, sorted(first)[:2]))
