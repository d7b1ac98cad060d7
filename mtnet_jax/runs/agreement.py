"""Checks that all processes of a run have the same configuration and videos."""

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence

import jax
import ml_collections

from mtnet_jax.data.batches import EvaluationBatches, TrainingBatches
from mtnet_jax.devices import processes
from mtnet_jax.errors import UserError
from mtnet_jax.runs import configuration

# Keys that may differ between machines, about their disks and cores.
_OWN_KEYS = (
  *('data.dir', 'data.num_workers', 'data.prefetch'),
  'train.compilation_cache',
)


def check(
  config: ml_collections.ConfigDict,
  dataset: TrainingBatches | EvaluationBatches,
) -> None:
  """Raises a UserError unless all processes have one configuration and data.

  All processes call it.

  Args:
    config: the configuration of this process.
    dataset: the batches that this process made of it.

  Raises:
    UserError: they differ; the message names in what.
  """
  if jax.process_count() == 1:
    return
  told = _told(config, dataset)
  text = json.dumps(told).encode()
  if len(set(processes.gather(hashlib.sha256(text).digest()))) == 1:
    return
  everybody = processes.gather(zlib.compress(text))
  raise difference([json.loads(zlib.decompress(each)) for each in everybody])


def _told(config, dataset) -> dict[str, str]:
  return {
    'jax': jax.__version__,
    **{
      f'--config.{name}': str(value)
      for name, value in configuration.flatten(config).items()
      if name not in _OWN_KEYS
    },
    **{f'class {k}': name for k, name in enumerate(dataset.labels)},
    **{f'video {k}': name for k, name in enumerate(dataset.source.names())},
  }


def difference(told: Sequence[Mapping[str, str]]) -> UserError:
  """Returns the error for processes that differ.

  Args:
    told: the values of each process, by name; those of two at least differ.
  """
  names = list({name: None for of in told for name in of})
  first = next(n for n in names if len({of.get(n) for of in told}) > 1)
  other = next(
    k for k, of in enumerate(told) if of.get(first) != told[0].get(first)
  )
  count = sum(len({of.get(n) for of in told}) > 1 for n in names)
  here, there = (of.get(first, 'missing') for of in (told[0], told[other]))
  return UserError(
    f'The processes of this run do not agree: {first} is {here} in process 0 '
    f'and {there} in process {other} ({count} such differences). Give all of '
    'them the same flags and the same data.'
  )
