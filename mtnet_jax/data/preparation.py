"""Listed videos into record files, with a report on each of them."""

import collections
import concurrent.futures
import dataclasses
import hashlib
import itertools
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from mtnet_jax.data import encoding, records, sources
from mtnet_jax.data.records import Example
from mtnet_jax.data.sources import Listing
from mtnet_jax.data.video import VideoError, VideoReader
from mtnet_jax.errors import UserError
from mtnet_jax.progress import Progress

MANIFEST_NAME = 'manifest.json'

_SHARD_BYTES = 2**28
_MAX_NAMED = 20  # problems that are printed; the manifest has all of them


def write(
  listing: Listing,
  out: str | os.PathLike,
  num_shards: int = 0,
  num_frames: int = 16,
  short_side: int = 0,
) -> dict:
  """Writes record files, `labels.txt` and `manifest.json`.

  Finished record files whose videos have not changed are kept.

  Args:
    listing: the videos.
    out: the folder that gets the files, made if need be.
    num_shards: record files a split; 0: one for each 256 MiB of videos.
    num_frames: videos with fewer frames are kept, and named as short.
    short_side: pixels, even. Videos are encoded anew, with shorter sides no
      longer than this and of the range of times only; 0: files as they are.

  Returns:
    The manifest:
    * `labels`, the classes' names, and `short_side`, as given;
    * `splits`: for each, the numbers of videos `written`, `skipped` and
      `short`, and `classes`, those written by class;
    * `shards`: for each file, `skipped`: why a video was left out, by id;
      `short`: frames, by id; `classes`; `sha256` of the file and of its
      `inputs`.

  Raises:
    UserError: no video can be read, two have one id, or `short_side` is odd;
      `out` cannot be written, or holds the videos, files of another origin,
      or records of videos that are all missing now.
  """
  out = pathlib.Path(out)
  _check(listing, out, short_side)
  plan = _plan(listing.splits, num_shards)
  form = _Form(listing.labels, num_frames, short_side)
  inputs = {name: _fingerprint(of, form) for name, of in plan.items()}
  try:
    out.mkdir(parents=True, exist_ok=True)
    finished = _finished_shards(out, plan, inputs)
    # Written last: a folder without it does not count as complete.
    (out / sources.LABELS_NAME).unlink(missing_ok=True)
    shards = _write_shards(out, plan, inputs, form, finished)
    return _finish(out, listing, short_side, shards)
  except OSError as error:
    raise UserError(
      f'--out={out} cannot be written: {error.strerror or error}.'
    ) from error


@dataclasses.dataclass(frozen=True)
class _Form:
  """What is the same for all record files; see `write`."""

  labels: tuple[str, ...]
  num_frames: int
  short_side: int


def _check(listing: Listing, out: pathlib.Path, short_side: int):
  if short_side % 2:
    raise UserError(
      f'--short_side={short_side} must be even: H.264 stores colors for every '
      'second pixel.'
    )
  examples = [*itertools.chain(*listing.splits.values())]
  folders = {listing.directory} | {os.path.dirname(e.video) for e in examples}
  there = filter(os.path.isdir, folders)
  if os.path.isdir(out) and any(out.samefile(folder) for folder in there):
    raise UserError(f'--out={out} holds the videos: give another folder.')
  videos_of = collections.Counter(example.id for example in examples)
  repeated = [name for name, videos in videos_of.items() if videos > 1]
  if repeated:
    raise UserError(
      f'{len(repeated)} names stand for several videos, the first is '
      f'{repeated[0]!r}. Give each video a name of its own.'
    )


def _plan(
  splits: Mapping[str, Sequence[Example]], num_shards: int
) -> dict[str, Sequence[Example]]:
  """Returns the videos of every record file, by its name."""
  plan = {}
  for split, examples in splits.items():
    size = sum(_size_and_time(example)[0] for example in examples)
    count = num_shards or max(1, math.ceil(size / _SHARD_BYTES))
    for shard in range(count):
      plan[records.shard_name(split, shard, count)] = examples[shard::count]
  return plan


def _finished_shards(
  out: pathlib.Path,
  plan: Mapping[str, Sequence[Example]],
  inputs: Mapping[str, str],
) -> dict[str, dict]:
  """Returns the reports of the record files that are there already.

  Raises:
    UserError: what is there is of another origin, or could not be made again.
  """
  reports = _earlier_reports(out)
  present = {path.name for path in out.glob(f'*{records.SUFFIX}')}
  strange = sorted(present - set(plan))
  if strange:
    raise UserError(
      f'--out={out} holds records of another preparation, such as '
      f'{strange[0]}. Give another folder, or delete them. Are all videos '
      'there? Their sizes say how many files there are.'
    )
  finished = {name: reports[name] for name in present & set(reports)}
  for name in sorted(present):
    if name in finished and finished[name]['inputs'] == inputs[name]:
      continue
    videos = [example.video for example in plan[name]]
    missing = videos and not any(map(os.path.exists, videos))
    if missing and len(records.Reader([out / name])):
      raise UserError(
        f'All videos of {out / name} are missing now, the first is '
        f'{videos[0]}: its records would be lost. Bring the videos back, or '
        'give another folder as --out.'
      )
  return finished


def _earlier_reports(out: pathlib.Path) -> dict[str, dict]:
  """Returns the reports of an earlier preparation, by record file."""
  manifest, strange = out / MANIFEST_NAME, out / sources.LABELS_NAME
  try:
    shards = json.loads(manifest.read_text('utf-8'))['shards']
    return {name: report for name, report in shards.items() if report['inputs']}
  except FileNotFoundError:
    if not strange.exists():
      return {}
  except (ValueError, LookupError, TypeError, AttributeError):
    strange = manifest
  raise UserError(
    f'{strange} was not written by a preparation. Give another folder as '
    '--out, or move the file away.'
  )


def _write_shards(
  out: pathlib.Path,
  plan: Mapping[str, Sequence[Example]],
  inputs: Mapping[str, str],
  form: _Form,
  finished: Mapping[str, dict],
) -> dict[str, dict]:
  """Writes the record files that are not finished; reports on all, by name."""
  reports = dict(finished)
  total = sum(map(len, plan.values()))
  with Progress('preparing', total, 'videos') as progress:
    for name, examples in plan.items():
      if name in reports and reports[name]['inputs'] == inputs[name]:
        progress.advance(len(examples))
        continue
      report = _write_shard(out / name, examples, form, progress)
      reports[name] = {'inputs': inputs[name]} | report
      _write_text(out / MANIFEST_NAME, json.dumps({'shards': reports}))
  return {name: reports[name] for name in plan}


def _finish(
  out: pathlib.Path,
  listing: Listing,
  short_side: int,
  shards: Mapping[str, dict],
) -> dict:
  """Writes and returns the manifest; writes `labels.txt`."""
  splits = {split: _sum(split, shards) for split in listing.splits}
  manifest = {
    'labels': list(listing.labels),
    'short_side': short_side,
    'splits': splits,
    'shards': shards,
  }
  _write_text(out / MANIFEST_NAME, json.dumps(manifest, indent=1))
  if not any(numbers['written'] for numbers in splits.values()):
    raise UserError(
      f'None of the videos can be read; {out / MANIFEST_NAME} says why.'
    )
  if 'train' in splits:
    trained = splits['train']['classes']
    sources.warn_of_untrained(listing.labels, trained, out)
  _write_text(out / sources.LABELS_NAME, '\n'.join(listing.labels) + '\n')
  return manifest


def _fingerprint(examples: Sequence[Example], form: _Form) -> str:
  """Returns a hash that changes whenever a record file would."""
  inputs = [
    (e.id, e.label, e.start, e.end, *_size_and_time(e)) for e in examples
  ]
  text = json.dumps([dataclasses.astuple(form), inputs])
  return hashlib.sha256(text.encode()).hexdigest()


def _size_and_time(example: Example) -> tuple[int, int]:
  try:
    status = os.stat(example.video)
  except OSError:
    return 0, 0
  return status.st_size, status.st_mtime_ns


def _write_shard(
  path: pathlib.Path,
  examples: Sequence[Example],
  form: _Form,
  progress: Progress,
) -> dict:
  """Writes the videos that can be read, and reports on all of them."""
  classes, skipped, short = collections.Counter(), {}, {}

  def readable() -> Iterator[Example]:
    for example, frames, problem in _try_all(examples, form.short_side):
      progress.advance()
      if problem:
        skipped[example.id] = problem
        continue
      if frames < form.num_frames:
        short[example.id] = frames
      classes[form.labels[example.label]] += 1
      yield example

  records.write(path, readable())
  report = {'classes': classes, 'skipped': skipped, 'short': short}
  return report | {'sha256': _sha256(path)}


def _try_all(
  examples: Sequence[Example], short_side: int
) -> Iterator[tuple[Example, int, str]]:
  # Threads suffice: FFmpeg works without holding Python's lock.
  workers = os.cpu_count() or 1
  pool = concurrent.futures.ThreadPoolExecutor(workers)
  results = collections.deque()  # a few: they hold the videos' contents
  try:
    for example in examples:
      results.append(pool.submit(_try, example, short_side))
      if len(results) > 2 * workers:
        yield results.popleft().result()
    while results:
      yield results.popleft().result()
  finally:
    pool.shutdown(cancel_futures=True)


def _try(example: Example, short_side: int) -> tuple[Example, int, str]:
  """Returns what is to be written, its number of frames, and what is wrong."""
  try:
    if short_side:
      with VideoReader(example.video, example.start, example.end) as video:
        contents, start, end = encoding.encode(video, short_side), None, None
        frames = video.num_frames
    else:
      start, end = example.start, example.end
      contents = pathlib.Path(example.video).read_bytes()
      with VideoReader(contents, start, end) as video:
        frames = video.num_frames
        video.read([0, frames - 1])
  except OSError as error:
    return example, 0, error.strerror
  except VideoError as error:
    return example, 0, error.cause
  return Example(example.id, example.label, contents, start, end), frames, ''


def _sum(split: str, shards: Mapping[str, dict]) -> dict:
  own = [
    report for name, report in shards.items() if name.startswith(f'{split}-')
  ]
  classes = collections.Counter()
  for report in own:
    classes.update(report['classes'])
  return {
    'written': classes.total(),
    'skipped': sum(len(report['skipped']) for report in own),
    'short': sum(len(report['short']) for report in own),
    'classes': dict(sorted(classes.items())),
  }


def _sha256(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _write_text(path: pathlib.Path, text: str):
  partial = path.with_name(path.name + '.partial')
  partial.write_text(text, 'utf-8')
  partial.replace(path)


def show(manifest: Mapping, out: str | os.PathLike) -> None:
  """Prints what came of a preparation.

  Args:
    manifest: from `write`.
    out: where the records are.
  """
  for split, numbers in manifest['splits'].items():
    print(
      f'{split}: {numbers["written"]} videos of {len(numbers["classes"])} '
      f'classes, {numbers["skipped"]} skipped, {numbers["short"]} short'
    )
  reports = manifest['shards'].values()
  problems = [
    f'skipped {i}: {c}' for r in reports for i, c in r['skipped'].items()
  ]
  problems += [
    f'short {i}: {n} frames' for r in reports for i, n in r['short'].items()
  ]
  for problem in problems[:_MAX_NAMED]:
    print(problem)
  if len(problems) > _MAX_NAMED:
    print(f'and {len(problems) - _MAX_NAMED} more')
  print(f'Everything: {pathlib.Path(out) / MANIFEST_NAME}')
