"""Size, frame rate and length of a video, which say nothing of the action."""

import dataclasses

import numpy as np

_FRAME_RATES = (12, 15, 20, 24, 25, 30)
_FEWEST_FRAMES, _MOST_FRAMES = 20, 90
_SHORTEST, _LONGEST = 1.0, 3.0  # action, seconds
_LONGEST_PAUSE = 0.12  # before and after the action, as a share of the video
_HEIGHTS = (80, 120)  # pixels
_ASPECTS = (1.0, 1.4)  # width over height
_GOLDEN = (5**0.5 - 1) / 2


@dataclasses.dataclass(frozen=True)
class Format:
  """A video without its pictures.

  Attributes:
    width: even number of pixels.
    height: even number of pixels.
    fps: frames a second.
    frames: number of frames.
    start: when the action begins, as a share of the video.
    end: when it is over, as a share of the video.
  """

  width: int
  height: int
  fps: int
  frames: int
  start: float
  end: float

  @property
  def seconds(self) -> np.ndarray:
    """Time of each frame, (t,)."""
    return np.arange(self.frames) / self.fps

  @property
  def phase(self) -> np.ndarray:
    """Progress of the action at each frame, (t,), from 0 to 1."""
    share = np.arange(self.frames) / (self.frames - 1)
    return np.clip((share - self.start) / (self.end - self.start), 0, 1)


def sample(index: int, rng: np.random.Generator) -> Format:
  """Draws the format of the video number `index`, which is 0 or more.

  The durations of consecutive numbers spread evenly over their range (steps of
  the golden ratio), so that any ten of them span nearly the factor of 3.
  """
  share = (index + 1) * _GOLDEN % 1.0
  duration = _SHORTEST * (_LONGEST / _SHORTEST) ** share
  before, after = rng.uniform(0, _LONGEST_PAUSE, 2)
  duration = duration / (1 - before - after)
  rates = [
    rate
    for rate in _FRAME_RATES
    if _FEWEST_FRAMES <= round(duration * rate) <= _MOST_FRAMES
  ]
  fps = int(rng.choice(rates))
  height = 2 * round(rng.uniform(*_HEIGHTS) / 2)
  width = 2 * round(height * rng.uniform(*_ASPECTS) / 2)
  return Format(
    width, height, fps, round(duration * fps), float(before), float(1 - after)
  )
