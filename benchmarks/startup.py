"""Measures the opening of data sets: python -m benchmarks.startup [FILES].

Training and evaluation batches of a directory of 10,000 videos, as folders and
as a CSV file, against `os.walk` over the same directory in the same run. The
files are empty: none is opened at the start.
"""

import csv
import os
import pathlib
import statistics
import sys
import tempfile
import time

from configs import base
from mtnet_jax.data import pipeline

_CLASSES = 50
_REPEATS = 5


def main(num_files: int) -> None:
  """Prints a line a kind of directory."""
  print('| directory | seconds | times `os.walk` |')
  print('| --- | --- | --- |')
  with tempfile.TemporaryDirectory() as temporary:
    folders = pathlib.Path(temporary, 'folders')
    names = _make_files(folders, num_files)
    table = pathlib.Path(temporary, 'clips.csv')
    _write_table(table, names)
    walk = _median(lambda: sum(len(files) for *_, files in os.walk(folders)))
    for kind, directory in (('folders', folders), ('CSV', table)):
      seconds = _median(lambda directory=directory: _open(directory))
      print(f'| {num_files:,} videos, {kind} | {seconds:.2f} | '
            f'{seconds / walk:.0f} |')  # fmt: skip


def _make_files(folders: pathlib.Path, num_files: int) -> list[str]:
  folders.mkdir()
  names = []
  for i in range(num_files):
    split = ('train', 'train', 'train', 'val')[i // _CLASSES % 4]
    names.append(f'{split}/class_{i % _CLASSES}/{i}.mp4')
    path = folders / names[-1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
  return names


def _write_table(table: pathlib.Path, names: list[str]) -> None:
  with table.open('w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(['path', 'label', 'split'])
    for name in names:
      split, label, _ = name.split('/')
      writer.writerow([f'folders/{name}', label, split])


def _open(directory: pathlib.Path) -> None:
  config = base.get_config()
  config.data.dir = str(directory)
  pipeline.build(config, 'train')
  pipeline.build(config, 'val')


def _median(function) -> float:
  times = []
  for _ in range(_REPEATS):
    before = time.perf_counter()
    function()
    times.append(time.perf_counter() - before)
  return statistics.median(times)


if __name__ == '__main__':
  main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
