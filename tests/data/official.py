"""Small copies of public data sets, in the forms of their authors."""

import importlib
import pathlib
from collections.abc import Iterable, Mapping

from mtnet_jax.data.sources import Listing
from tests import command_line


def write(folder: pathlib.Path, texts: Mapping[str, str]) -> pathlib.Path:
  """Writes texts by file name into a folder; returns it."""
  folder.mkdir(parents=True, exist_ok=True)
  for name, text in texts.items():
    (folder / name).write_text(text, 'utf-8', newline='')
  return folder


def touch(folder: pathlib.Path, names: Iterable[str]) -> pathlib.Path:
  """Makes empty files, with the folders that they lie in; returns the root."""
  for name in names:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
  return folder


def contents(listing: Listing) -> dict[str, list[tuple]]:
  """Each split's (id, class, path in the folder or '', start, end)."""
  return {
    split: [
      (
        example.id,
        listing.labels[example.label],
        str(pathlib.Path(example.video).relative_to(listing.directory))
        if pathlib.Path(example.video).exists()
        else '',
        example.start,
        example.end,
      )
      for example in examples
    ]
    for split, examples in listing.splits.items()
  }


def prepare(name: str, **values: object) -> command_line.Done:
  """Does what `mtnet prepare NAME --FLAG=VALUE ...` says."""
  flags = [f'--{flag}={value}' for flag, value in values.items()]
  module = importlib.import_module(f'mtnet_jax.datasets.{name}.prepare')
  return command_line.run(module.COMMAND, *flags)
