"""Divides videos into those for training, validation and testing.

A video's place follows from its name alone, so that a new video moves hardly
any of the others.
"""

import hashlib
import os
from collections.abc import Sequence

SPLITS = ('train', 'val', 'test')
# The shares of a class; its other videos are for training.
_HELD_OUT = 0.15


def divide(videos: Sequence[str]) -> dict[str, list[str]]:
  """Divides a class's videos 80 : 10 : 10, with at least one in each split.

  Args:
    videos: their names. Fewer than three are all for training.

  Returns:
    The names of each split, in order.
  """
  if len(videos) < 3:
    return {'train': list(videos), 'val': [], 'test': []}
  splits = {split: [] for split in SPLITS}
  for place, video in sorted((_place(video), video) for video in videos):
    split = 'train' if place < 0.8 else 'val' if place < 0.9 else 'test'
    splits[split].append(video)
  for split in SPLITS:
    if not splits[split]:
      largest = max(splits.values(), key=len)
      splits[split].append(largest.pop(0 if split == 'train' else -1))
  return {split: sorted(chosen) for split, chosen in splits.items()}


def hold_out(videos: Sequence[str]) -> list[str]:
  """Chooses some of a class's training videos for another split.

  Args:
    videos: their names.

  Returns:
    15 % of them, at least one; of fewer than three none.
  """
  count = max(1, round(_HELD_OUT * len(videos))) if len(videos) > 2 else 0
  return sorted(sorted(videos, key=_place)[len(videos) - count :])


def _place(name: str) -> float:
  """Returns a number in [0, 1), the same on every machine."""
  digest = hashlib.sha256(os.fsencode(name)).digest()
  return int.from_bytes(digest[:6]) / 2**48
