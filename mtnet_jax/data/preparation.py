"""Writes listed videos into record files, with a report on each file."""

import collections
import dataclasses
import hashlib
import itertools
import json
import math
import os
import pathlib
import stat
from collections.abc import Mapping, Sequence

from mtnet_jax import files, locations
from mtnet_jax.data import (
  beam_runner,
  class_names,
  frame_folders,
  records,
  shards,
  shared_videos,
)
from mtnet_jax.data.folders import is_video_name
from mtnet_jax.data.records import Example
from mtnet_jax.data.shards import Form, Shard
from mtnet_jax.data.sources import MANIFEST_NAME, Listing
from mtnet_jax.errors import UserError, first_causes, printable
from mtnet_jax.progress import Progress

_SHARD_BYTES = 2**28
# A folder without labels.txt does not count as complete.
_OF_WHOLE = class_names.LABELS_NAME, MANIFEST_NAME
_MAX_NAMED = 20  # problems that are printed; the manifest has all of them

# A video's size and time of its last change; None: there is no such file.
_Stats = Mapping[str, tuple[int, int] | None]


def write(
  listing: Listing,
  out: str | os.PathLike,
  num_shards: int = 0,
  num_frames: int = 16,
  short_side: int = 0,
  runner: str = '',
  pipeline_options: Sequence[str] = (),
) -> dict:
  """Writes record files, `labels.txt` and `manifest.json`.

  Finished record files whose videos have not changed are kept. Of a video with
  a start or an end, a record holds those frames alone, encoded anew; a folder
  of images is encoded as well.

  Args:
    listing: the videos.
    out: the folder that gets the files, made if need be.
    num_shards: record files a split; 0: one for each 256 MiB of videos.
    num_frames: videos with fewer frames are kept, and named as short.
    short_side: pixels, even. Videos are encoded anew, with shorter sides no
      longer than this; 0: whole files are kept as they are, byte for byte, and
      folders of images keep their size.
    runner: Apache Beam's name of what makes the files; '': this machine does.
    pipeline_options: further flags of Beam, such as '--direct_num_workers=4'.

  Returns:
    The manifest:
    * `labels`, the classes' names, and `short_side`, as given;
    * `splits`: for each, the numbers of videos `written`, `skipped` (which are
      `missing` or `broken`) and `short`, and `classes`, those written by class;
    * `shards`: for each file, what `shards.write` returns.

  Raises:
    UserError: no video can be read, two have one id, or `short_side` is odd;
      `out` cannot be written, or holds the videos, files of another origin,
      or records of videos that are all missing now; Beam is not installed, or
      refuses the runner or its options.
  """
  out = locations.local_path(out)
  _check(listing, out, short_side)
  # The pipeline is built first: if Beam refuses, existing files must not be
  # lost.
  pipeline = beam_runner.build(runner, pipeline_options) if runner else None
  found = shared_videos.look_at_files(listing.splits)
  class_names.warn_of_look_alikes(listing.labels, listing.directory)
  shared_videos.warn(listing.splits, found, listing.directory)
  stats = {video: _size_and_time(video, own) for video, own in found.items()}
  form = Form(listing.labels, num_frames, short_side)
  plan = _plan(listing.splits, out, num_shards, form, stats)
  try:
    out.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished(out, plan, stats)
    _clean(out, plan, unfinished)
    if pipeline and unfinished:
      beam_runner.run(pipeline, unfinished)
      _remove_partial(out, plan)  # of workers that were killed
    elif unfinished:
      _write_here(unfinished)
    return _finish(out, listing, short_side, plan)
  except OSError as error:
    raise UserError(
      f'--out={out} cannot be written: {error.strerror or error}. '
      f'{files.NO_ROOM.get(error.errno, "Mend that")} and give the same '
      'command again.'
    ) from error


def _check(listing: Listing, out: pathlib.Path, short_side: int):
  if short_side % 2:
    raise UserError(
      f'--short_side={short_side} must be even: H.264 stores colors for every '
      'second pixel.'
    )
  examples = [*itertools.chain(*listing.splits.values())]
  folders = {listing.directory} | {os.path.dirname(e.video) for e in examples}
  folders |= {e.video for e in examples if not is_video_name(e.video)}
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
  splits: Mapping[str, Sequence[Example]],
  out: pathlib.Path,
  num_shards: int,
  form: Form,
  stats: _Stats,
) -> list[Shard]:
  """Returns all record files, one split after the other."""
  plan = []
  for split, examples in splits.items():
    videos = {example.video for example in examples}
    size = sum(stats[video][0] for video in videos if stats[video])
    count = num_shards or max(1, math.ceil(size / _SHARD_BYTES))
    for number in range(count):
      path = out / records.shard_name(split, number, count)
      own = tuple(examples[number::count])
      plan.append(Shard(path, own, form, _fingerprint(own, form, stats)))
  return plan


def _size_and_time(
  video: str, status: os.stat_result | None
) -> tuple[int, int] | None:
  if status is None:
    return None
  if stat.S_ISDIR(status.st_mode):
    try:
      return frame_folders.size_and_time(video)
    except OSError:
      pass  # told where it is read
  return status.st_size, status.st_mtime_ns


def _fingerprint(examples: Sequence[Example], form: Form, stats: _Stats) -> str:
  """Returns a hash that changes whenever a record file would."""
  inputs = [
    (e.id, e.label, e.start, e.end, stats[e.video], *([e.fps] if e.fps else []))
    for e in examples
  ]
  text = json.dumps([dataclasses.astuple(form), inputs])
  return hashlib.sha256(text.encode()).hexdigest()


def _unfinished(
  out: pathlib.Path, plan: Sequence[Shard], stats: _Stats
) -> list[Shard]:
  """Returns the record files that are to be made.

  Raises:
    UserError: what is there is of another origin, or could not be made again.
  """
  _check_origin(out)
  present = {path.name for path in out.glob(f'[!.]*{records.SUFFIX}')}
  strange = sorted(present - {shard.path.name for shard in plan})
  if strange:
    raise UserError(
      f'--out={out} holds records of another preparation, such as '
      f'{strange[0]}. Give another folder, or delete them. Are all videos '
      'there? Their sizes say how many files there are.'
    )
  unfinished = [s for s in plan if shards.read_report(s) is None]
  for shard in unfinished:
    videos = [example.video for example in shard.examples]
    missing = videos and not any(stats[video] for video in videos)
    there = shard.path.name in present
    if missing and there and len(records.Reader([shard.path])):
      raise UserError(
        f'All videos of {shard.path} are missing now, the first is '
        f'{videos[0]}: its records would be lost. Bring the videos back, or '
        'give another folder as --out.'
      )
  return unfinished


def _check_origin(out: pathlib.Path):
  """Raises a UserError where files have our names and are not ours."""
  manifest, strange = out / MANIFEST_NAME, out / class_names.LABELS_NAME
  try:
    reports = json.loads(manifest.read_text('utf-8'))['shards'].values()
    if all('inputs' in report for report in reports):
      return
    strange = manifest
  except FileNotFoundError:
    if not strange.exists():
      return
  except (ValueError, LookupError, TypeError, AttributeError):
    strange = manifest
  raise UserError(
    f'{strange} was not written by a preparation. Give another folder as '
    '--out, or move the file away.'
  )


def _clean(
  out: pathlib.Path, plan: Sequence[Shard], unfinished: Sequence[Shard]
):
  """Removes what tells of files that will be made, and what was cut off."""
  for name in _OF_WHOLE:
    (out / name).unlink(missing_ok=True)
  for shard in unfinished:
    shard.report_path.unlink(missing_ok=True)
  _remove_partial(out, plan)


def _remove_partial(out: pathlib.Path, plan: Sequence[Shard]):
  """Removes files that were cut off."""
  ours = *_OF_WHOLE, *(shard.path.stem for shard in plan)
  for path in out.glob(f'*{files.PARTIAL}'):
    if path.name.startswith(ours):
      path.unlink(missing_ok=True)


def _write_here(unfinished: Sequence[Shard]):
  total = sum(len(shard.examples) for shard in unfinished)
  with Progress('preparing', total, 'videos') as progress:
    for shard in unfinished:
      shards.write(shard, progress.advance, os.cpu_count() or 1)


def _finish(
  out: pathlib.Path,
  listing: Listing,
  short_side: int,
  plan: Sequence[Shard],
) -> dict:
  """Writes and returns the manifest; writes `labels.txt`."""
  reports = {shard.path.name: shards.read_report(shard) for shard in plan}
  splits = {split: _sum(split, reports) for split in listing.splits}
  manifest = {
    'labels': list(listing.labels),
    'short_side': short_side,
    'splits': splits,
    'shards': reports,
  }
  shards.write_json(out / MANIFEST_NAME, manifest)
  if not any(numbers['written'] for numbers in splits.values()):
    skipped = (report['skipped'].items() for report in reports.values())
    causes = first_causes(itertools.chain.from_iterable(skipped))
    raise UserError(
      f'None of the videos can be read: {causes}. {out / MANIFEST_NAME} names '
      'all of them.'
    )
  for split, numbers in splits.items():
    counts = numbers['classes']
    class_names.tell_videos(out, split, listing.labels, counts)
  if 'train' in splits:
    trained = splits['train']['classes']
    class_names.warn_of_untrained(listing.labels, trained, out)
  names = '\n'.join(listing.labels) + '\n'
  files.write_text(out / class_names.LABELS_NAME, names)
  return manifest


def _sum(split: str, reports: Mapping[str, dict]) -> dict:
  own = [
    report for name, report in reports.items() if name.startswith(f'{split}-')
  ]
  classes = collections.Counter()
  for report in own:
    classes.update(report['classes'])
  reasons = [why for report in own for why in report['skipped'].values()]
  missing = reasons.count(shards.MISSING)
  return {
    'written': classes.total(),
    'skipped': len(reasons),
    'missing': missing,
    'broken': len(reasons) - missing,
    'short': sum(len(report['short']) for report in own),
    'classes': dict(sorted(classes.items())),
  }


def show(manifest: Mapping, out: str | os.PathLike) -> None:
  """Prints what came of a preparation.

  Args:
    manifest: the manifest from `write`.
    out: the folder of the records.
  """
  for split, numbers in manifest['splits'].items():
    print(
      f'{split}: {numbers["written"]} videos of {len(numbers["classes"])} '
      f'classes; {numbers["missing"]} missing, {numbers["broken"]} broken, '
      f'{numbers["short"]} short'
    )
  reports = manifest['shards'].values()
  problems = [
    f'skipped {i}: {c}' for r in reports for i, c in r['skipped'].items()
  ]
  problems += [
    f'short {i}: {n} frames' for r in reports for i, n in r['short'].items()
  ]
  for problem in problems[:_MAX_NAMED]:
    print(printable(problem))
  if len(problems) > _MAX_NAMED:
    print(f'and {len(problems) - _MAX_NAMED} more')
  print(printable(f'Everything: {pathlib.Path(out) / MANIFEST_NAME}'))
