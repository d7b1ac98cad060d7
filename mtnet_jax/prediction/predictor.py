"""Classifies videos with a trained network.

Example:
  predictor = Predictor('runs/demo')
  prediction = predictor('wave.mp4')
  prediction.top(3)  # [('wave', 0.93), ('raise_arms', 0.04), ('jump', 0.01)]
"""

import dataclasses
import functools
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mtnet_jax import locations, preprocessing
from mtnet_jax.data import clips as clips_lib
from mtnet_jax.data import views
from mtnet_jax.data.frame_folders import FrameFolderReader
from mtnet_jax.data.video import VideoError, VideoReader
from mtnet_jax.data.views import ArrayReader, Frames
from mtnet_jax.devices import device_memory
from mtnet_jax.devices.chunks import map_in_chunks
from mtnet_jax.devices.compiler import jit
from mtnet_jax.errors import UserError
from mtnet_jax.prediction import stored_model
from mtnet_jax.prediction.user_videos import (
  InputError,
  Video,
  open_video,
  unreadable,
)
from mtnet_jax.runs import folder as run_folder
from mtnet_jax.runs.given import Given
from mtnet_jax.typing import Array, Float, Int, UInt8

# The number of clips beyond which a video likely has more than one action.
_MOST_CLIPS_FOR_ONE_PREDICTION = 10


@dataclasses.dataclass(frozen=True)
class Prediction:
  """The output of a model for one video.

  Attributes:
    title: the video's name.
    class_names: the names of the k classes.
    probabilities: `(k,)` float32, averaged over the views; they sum to 1.
    note: a remark on the video, such as that it is short, or ''.
    seconds: the video's length by its frames' own times, from the first one to
      the end of the last; of an array at 25 frames a second.
  """

  title: str
  class_names: tuple[str, ...]
  probabilities: Float[np.ndarray, ' k']
  note: str = ''
  seconds: float = float('nan')

  def top(self, k: int = 5) -> list[tuple[str, float]]:
    """Returns the k most probable classes, the first among equals first."""
    order = np.argsort(-self.probabilities, kind='stable')[:k]
    return [
      (self.class_names[index], float(self.probabilities[index]))
      for index in order
    ]


class Predictor:
  """Classifies videos as `mtnet eval` does.

  Attributes:
    config: the run's configuration; of an exported model, what is known of its
      sections `data` and `eval`.
    class_names: the names of the k classes.
    model: the network; None for an exported model.
    variables: the network's `params` and `batch_stats`, on all devices of this
      process; None for an exported model.
    step: the training step that the weights are of; None for an exported model.
    source: the origin of the weights, in words.
  """

  def __init__(
    self,
    workdir: str | os.PathLike,
    checkpoint: str = 'best',
    *,
    num_clips: int | None = None,
    num_crops: int | None = None,
    given: Given | None = None,
  ):
    """Loads a model.

    Args:
      workdir: a run's folder. Where it has no checkpoints, a model in the form
        of Hugging Face's hub in WORKDIR, or an exported model in WORKDIR/export
        or in WORKDIR itself, is used the same way.
      checkpoint: 'best' (on validation) or 'last'.
      num_clips: clips that a video is judged by; None: as in the run.
      num_crops: crops of each clip; None: as in the run.
      given: the command line's changes to the run's configuration.

    Raises:
      UserError: there is no model, its files are damaged, or another network
        was given.
    """
    if checkpoint not in ('best', 'last'):
      raise UserError(f"checkpoint (={checkpoint!r}) must be 'best' or 'last'.")
    workdir = locations.as_path(workdir)
    if not workdir.is_dir():
      raise UserError(
        f'There is no folder {workdir}. Give the --workdir of a run that was '
        'trained, or of an exported model.'
      )
    stored = stored_model.read(workdir, checkpoint, given)
    self.config, self.class_names = stored.config, stored.class_names
    self.model, self.variables = stored.model, stored.variables
    self.step, self.source = stored.step, stored.source
    self._classify = lambda clips: stored.classify(self.variables, clips)
    self._mesh = stored.mesh
    for key, value in (('num_clips', num_clips), ('num_crops', num_crops)):
      if value is not None:
        self.config.eval[key] = value
    run_folder.check_config(self.config, self.source)

  @property
  def clips_per_step(self) -> int:
    """The largest number of clips that go through the network at once."""
    at = self.config.eval
    return min(at.clips_per_step, at.num_clips * at.num_crops)

  def __call__(self, video: Video) -> Prediction:
    """Classifies one video.

    Args:
      video: a video file, a folder of numbered images, an `.npy` file, or an
        array: uint8 `(t, h, w, 3)`, RGB frames from 0 to 255 at the video's own
        rate.

    Returns:
      The mean of its views' probabilities.

    Raises:
      InputError: the video cannot be read, it is too short for the run, or the
        network's numbers overflow on it.
      UserError: the network's weights are not finite.
    """
    with self.open(video) as reader:
      clips, note, title = self._views(reader), self._note(reader), reader.name
      seconds = float(reader.times[-1])
    probabilities = self.probabilities(clips).mean(axis=0)
    return Prediction(title, self.class_names, probabilities, note, seconds)

  def views(self, video: Video) -> UInt8[np.ndarray, 'v t s s 3']:
    """Returns the views that a video is judged by, as evaluation cuts them.

    Args:
      video: a video, as for a call.

    Returns:
      uint8, RGB; view `i·num_crops + j` is crop j of clip i.

    Raises:
      InputError: the video cannot be read, or it is too short for the run.
    """
    with self.open(video) as reader:
      return self._views(reader)

  def central_clip(
    self, video: Video, at: float | None = None
  ) -> tuple[UInt8[np.ndarray, 't s s 3'], Float[np.ndarray, ' t']]:
    """Returns one clip, and the times of its frames.

    Args:
      video: a video, as for a call.
      at: seconds from the video's start. The frame that is shown then is in
        the middle of the clip, or as near to it as the video's ends allow.
        None: the video's middle, where evaluation's single view is.

    Returns:
      The middle crop, uint8 RGB; and its frames' own seconds from the first
      frame of the video.

    Raises:
      InputError: the video cannot be read, is too short for the run, or does
        not last until `at`.
      UserError: `at` is given, and the run's clips are of the whole video.
    """
    if at is not None and self.config.data.sampling == 'uniform':
      raise UserError(
        f'A clip of {self.source} has frames of the whole video (data.sampling='
        f"'uniform'), and cannot be about a moment of it: leave out at={at}."
      )
    with self.open(video) as reader:
      count, times = reader.num_frames, reader.times
      indices = self.clip_indices(count, 1)
      if at is not None:
        if not 0 <= at <= times[-1]:
          raise InputError(
            f'{reader.name} lasts {times[-1]:.2f} s, {at} s is not in it. '
            'Give a time from its start, in seconds.'
          )
        indices = indices - indices[0, 0]
        last = indices[0, -1]
        # A clip that wraps round begins with the video, as in training.
        slack = 0 if self._too_short(count) else count - 1 - last
        shown = np.searchsorted(times, at, side='right') - 1
        indices += np.clip(round(shown - last / 2), 0, slack)
      clip = self.read(reader, indices, num_crops=1)[0]
    return clip, times[indices[0]]

  def open(self, video: Video) -> VideoReader | FrameFolderReader | ArrayReader:
    """Opens a video: a context manager, whose errors are `InputError`s.

    Args:
      video: a video, as for a call.
    """
    reader = open_video(video, self.config.data.frames_per_second)
    why = self._too_short(reader.num_frames)
    if why and self.config.data.short_videos == 'error':
      reader.close()
      raise InputError(
        f'{reader.name} {why}, and the run refuses such videos '
        "(data.short_videos='error'). Give a longer one."
      )
    return reader

  def clip_indices(
    self, num_frames: int, num_clips: int
  ) -> Int[np.ndarray, 'i t']:
    """Returns the frames of clips that are spread over a video, as in the run.

    Args:
      num_frames: frames in the video.
      num_clips: clips, i.
    """
    data = self.config.data
    return clips_lib.view_indices(
      num_frames,
      data.num_frames,
      data.frame_stride,
      num_clips,
      data.sampling,
    )

  def read(
    self,
    reader: Frames,
    indices: np.ndarray,
    num_crops: int | None = None,
  ) -> UInt8[np.ndarray, 'v t s s 3']:
    """Cuts clips out of an open video, as evaluation does.

    Args:
      reader: a reader from `open`.
      indices: `(i, t)`, of the frames of i clips.
      num_crops: the crops of each clip; None: as in the run.

    Returns:
      uint8; view `i·num_crops + j` is crop j of clip i.

    Raises:
      InputError: a frame cannot be read.
    """
    try:
      return views.read(
        reader,
        indices,
        num_crops=num_crops or self.config.eval.num_crops,
        crop_size=self.config.eval.crop_size,
        input_size=self.config.eval.input_size,
      )
    except VideoError as error:
      raise unreadable(error) from error

  def probabilities(
    self, clips: UInt8[np.ndarray, 'n t s s 3']
  ) -> Float[np.ndarray, 'n k']:
    """Returns probabilities of single clips, float32; rows sum to 1.

    Args:
      clips: RGB, 0 to 255. They go through the network in steps of
        `clips_per_step`, a single one alone.

    Raises:
      InputError: the network's numbers overflow on these clips.
      UserError: the clips are of another dtype or shape, or the network's
        weights are not finite.
    """
    return self._map(self._classify, clips)

  def features(
    self, clips: UInt8[np.ndarray, 'n t s s 3']
  ) -> Float[np.ndarray, 'n c']:
    """Returns pooled features of single clips, the input of the network's head.

    Args:
      clips: clips as `probabilities` takes them; those of a video are its
        `views`.

    Returns:
      float32; the endpoint `features` of the network, which is the mean of the
      last activations over time and space.

    Raises:
      InputError: the network's numbers overflow on these clips.
      UserError: the model is an exported one, the clips are of another dtype or
        shape, or the network's weights are not finite.
    """
    if self.model is None:
      raise UserError(
        f'{self.source} gives probabilities and has no features. Take the run '
        'that it was exported from, or an export with --format=hub.'
      )
    return self._map(functools.partial(self._pool, self.variables), clips)

  @functools.cached_property
  def _pool(self) -> Callable[[dict, Array], Array]:
    def pool(variables, clips):
      clips = preprocessing.prepare(clips, self.model)
      _, endpoints = self.model.apply(variables, clips, train=False)
      return endpoints['features'].astype(jnp.float32)

    return jit(pool, self._mesh)

  def _map(self, function: Callable, clips: np.ndarray) -> np.ndarray:
    """Applies a function to clips on the devices, in steps of few clips."""
    clips = np.asarray(clips)
    if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[-1] != 3:
      raise UserError(
        f'The clips are {clips.dtype} {clips.shape}; allowed is uint8 (clips, '
        'frames, height, width, 3), RGB from 0 to 255, as `views` gives them.'
      )
    # There are at most two shapes, because each takes time to compile.
    step = 1 if len(clips) == 1 else self.clips_per_step
    with device_memory.explained('a smaller --config.eval.clips_per_step'):
      found = map_in_chunks(function, clips, step, self._mesh)
    if not np.isfinite(found).all():
      raise self._not_finite()
    return found

  def _views(self, reader: Frames) -> np.ndarray:
    num_clips = self.config.eval.num_clips
    return self.read(reader, self.clip_indices(reader.num_frames, num_clips))

  def _too_short(self, count: int) -> str:
    """Says that a video of so many frames is shorter than a clip, or ''."""
    data = self.config.data
    return clips_lib.too_short(
      count, data.num_frames, data.frame_stride, data.sampling
    )

  def _note(self, reader: Frames) -> str:
    data, count = self.config.data, reader.num_frames
    if count < data.num_frames:
      return (
        f'shorter than a clip: its {count} frames are repeated to '
        f'{data.num_frames}'
      )
    if data.sampling == 'uniform':  # a clip is as long as any video
      return ''
    span = (data.num_frames - 1) * data.frame_stride + 1
    if data.sampling == 'dense' and count < span:
      return f'shorter than a clip: its {count} frames begin again'
    if count > _MOST_CLIPS_FOR_ONE_PREDICTION * span:
      times, first = reader.times, (count - span) // 2
      return (
        f'{times[-1]:.0f} s long, and a clip is '
        f'{times[first + span] - times[first]:.1f} s: a timeline tells what '
        'happens when'
      )
    return ''

  def _not_finite(self) -> UserError:
    finite = self.variables is None or all(
      np.isfinite(leaf).all()
      for leaf in jax.tree.leaves(jax.device_get(self.variables))
    )
    why = (
      'its numbers overflow; compute in float32 (model.dtype)'
      if finite
      else 'its weights hold NaN or infinity: take another checkpoint, or '
      'train again from an earlier one at a lower learning rate'
    )
    # Numbers may overflow on one video and not on others.
    kind = InputError if finite else UserError
    return kind(f'The output of {self.source} is not finite: {why}.')
