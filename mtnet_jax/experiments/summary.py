"""Summarizes runs: means over seeds, intervals, and McNemar's test."""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from mtnet_jax.analysis.paired import Comparison, Pair
from mtnet_jax.errors import UserError
from mtnet_jax.evaluation.predictions import Predictions
from mtnet_jax.experiments import statistics
from mtnet_jax.experiments.plan import Job, Plan


@dataclasses.dataclass(frozen=True)
class Line:
  """A run over its seeds.

  Attributes:
    run: the run's name in the table.
    seeds: the seeds that are scored.
    top1: the top-1 of each seed, 0 to 1, of the videos that it could score.
    mean: the mean of `top1`.
    seed_interval: half of the 95 % interval over seeds: what training again
      could change. None for a single one.
    video_interval: half of the 95 % interval over videos: what other videos
      could change, with these networks.
    against: the run that it is compared with; itself: with none.
    comparison: the comparison with `against` (model a) on the videos that both
      could score, with the counts summed over the seeds of both.
    holm_p: the comparison's p-value, corrected for all comparisons of the
      table.
  """

  run: str
  seeds: tuple[int, ...]
  top1: tuple[float, ...]
  mean: float
  seed_interval: float | None
  video_interval: float | None
  against: str
  comparison: Comparison | None
  holm_p: float | None


def summarize(table: Plan, scored: Mapping[Job, Predictions]) -> list[Line]:
  """Returns a line for each run, in the order of the thesis.

  Args:
    table: the plan.
    scored: the predictions of the jobs that are finished.

  Raises:
    UserError: two runs that are compared were scored on different data.
  """
  jobs = defaultdict(dict)  # by run and seed
  for job in scored:
    jobs[job.run][job.seed] = job
  compared = {
    run: _compare(jobs.get(other, {}), jobs[run], scored)
    for run, other in table.against.items()
    if run in jobs and other != run
  }
  compared = {run: found for run, found in compared.items() if found}
  corrected = statistics.holm(
    {run: found.p_value for run, found in compared.items()}
  )
  lines = []
  for run, other in table.against.items():
    if run not in jobs:
      continue
    seeds = sorted(jobs[run])
    own = [scored[jobs[run][seed]] for seed in seeds]
    top1 = tuple(predictions.accuracy(1) for predictions in own)
    lines.append(
      Line(
        run=run,
        seeds=tuple(seeds),
        top1=top1,
        mean=float(np.mean(top1)),
        seed_interval=statistics.half_interval(top1),
        video_interval=statistics.half_interval(_by_video(own)),
        against=other,
        comparison=compared.get(run),
        holm_p=corrected.get(run),
      )
    )
  return lines


def find_missing(scored: Mapping[Job, Predictions]) -> dict[Job, list[str]]:
  """Returns the videos, sorted, that a job has not scored and another has.

  Args:
    scored: the predictions of the jobs that are finished.

  Returns:
    Them by job; jobs that miss none are left out.
  """
  own = {job: set(found.ids.tolist()) for job, found in scored.items()}
  every = set().union(*own.values())
  return {job: sorted(every - ids) for job, ids in own.items() if every - ids}


def _compare(
  others: Mapping[int, Job],
  own: Mapping[int, Job],
  scored: Mapping[Job, Predictions],
) -> Comparison | None:
  """Compares a run with another, over the seeds that both have."""
  found = []
  for seed in sorted(others.keys() & own.keys()):
    names, pair = _pair(scored[others[seed]], scored[own[seed]])
    if pair is None:
      raise UserError(
        f'{others[seed].workdir} and {own[seed].workdir} were not scored on '
        'the same data: they have no video in common, or number its classes '
        'in another way. Give the data of before, or another --out.'
      )
    found.append((names, pair))
  return statistics.pool(found) if found else None


def _pair(a: Predictions, b: Predictions) -> tuple[list[str], Pair | None]:
  """Pairs evaluations on the videos that both could score; None: other data.

  A file that could not be read once must not cost the table.
  """
  ids, first, second = np.intersect1d(a.ids, b.ids, return_indices=True)
  labels, classes = a.labels[first], a.probabilities.shape[1]
  same = np.array_equal(labels, b.labels[second])
  if not (same and len(labels) and classes == b.probabilities.shape[1]):
    return [], None
  right_a, right_b = a.predicted[first] == labels, b.predicted[second] == labels
  return ids.tolist(), Pair(labels, right_a, right_b, classes)


def _by_video(runs: Sequence[Predictions]) -> list[float]:
  """Returns the share of seeds that are right on each video."""
  right = defaultdict(list)
  for predictions in runs:
    hits = predictions.predicted == predictions.labels
    for video, hit in zip(predictions.ids.tolist(), hits, strict=True):
      right[video].append(hit)
  return [float(np.mean(hits)) for hits in right.values()]
