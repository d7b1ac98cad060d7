"""Checks that exported files compute what the network computes."""

import dataclasses
import functools
import os
import pathlib
import subprocess
import sys
import tempfile

import jax
import numpy as np
from flax import linen as nn

from mtnet_jax.errors import UserError
from mtnet_jax.export import onnx as onnx_lib
from mtnet_jax.export import program as program_lib
from mtnet_jax.export import run_alone
from mtnet_jax.typing import Array, Float, UInt8

# The largest allowed difference of logits, relative to their scale. Half
# precision rounds wherever a compiler ends a fusion, which for constant weights
# may be elsewhere.
_EXACT, _ROUNDED = 1e-5, 3e-3
_ONNX_TOLERANCE = 1e-4
_UNTOUCHED = 'It was not put in place; an earlier export stays as it was.'


@dataclasses.dataclass(frozen=True)
class Check:
  """A comparison of one way to run a model with the model itself.

  Attributes:
    name: the name of the file that was run.
    difference: the largest difference of the logits, relative to their scale.
    allowed: the largest `difference` that is allowed.
    milliseconds: the median time for one clip.
    original: the median time of the model itself, in milliseconds.
  """

  name: str
  difference: float
  allowed: float
  milliseconds: float
  original: float


def check_program(
  program: pathlib.Path,
  model: nn.Module,
  variables: dict,
  clip_shape: tuple[int, int, int, int],
) -> Check:
  """Runs an exported program in a fresh process, beside the network itself.

  Both run on the CPU: there products of float32 are not rounded, and the fresh
  process needs no accelerator, which this one may hold.

  Args:
    program: path of `model.stablehlo`.
    model: the network that was exported.
    variables: the network's `params` and `batch_stats`, on the CPU.
    clip_shape: `(t, s, s, 3)`.

  Raises:
    UserError: the program does not run, or needs more than jax and numpy.
  """
  clips = random_clips(3, clip_shape)
  found = _in_fresh_process(program, clips)
  original = jax.jit(functools.partial(program_lib.classify, model))
  expected = original(variables, clips)[0], original(variables, clips[:1])[0]
  return Check(
    program.name,
    max(map(_difference, (found['all'], found['one']), expected)),
    _EXACT if model.dtype == np.float32 else _ROUNDED,
    float(found['milliseconds']),
    run_alone.milliseconds(functools.partial(original, variables), clips[:1]),
  )


def check_onnx(
  contents: bytes,
  model: nn.Module,
  variables: dict,
  clip_shape: tuple[int, int, int, int],
) -> Check:
  """Runs an ONNX file in ONNX Runtime, beside the network itself.

  Args:
    contents: the file's bytes, from `export.onnx.convert`.
    model: the network that was exported.
    variables: the network's `params` and `batch_stats`.
    clip_shape: `(t, s, s, 3)`.
  """
  classify = onnx_lib.load(contents)
  original = functools.partial(
    jax.jit(
      functools.partial(program_lib.classify, onnx_lib.as_float32(model))
    ),
    variables,
  )
  clips = np.split(random_clips(3, clip_shape), 3)
  return Check(
    program_lib.ONNX,
    max(_difference(classify(clip), original(clip)[0]) for clip in clips),
    _ONNX_TOLERANCE,
    run_alone.milliseconds(classify, clips[0]),
    run_alone.milliseconds(original, clips[0]),
  )


def random_clips(
  count: int, clip_shape: tuple[int, int, int, int]
) -> UInt8[np.ndarray, 'n t s s 3']:
  """Draws clips of colored blocks, other ones in each frame.

  In white noise all frames have the same mean, and rounding alone would decide
  which of them a network keeps.

  Args:
    count: the number of clips.
    clip_shape: `(t, s, s, 3)`.
  """
  frames, size, _, _ = clip_shape
  rng = np.random.default_rng(0)
  blocks = rng.integers(0, 256, (count, frames, 4, 4, 3), np.uint8)
  place = np.arange(size) * 4 // size
  return blocks[:, :, place][:, :, :, place]


def _in_fresh_process(
  program: pathlib.Path, clips: np.ndarray
) -> dict[str, np.ndarray]:
  with tempfile.TemporaryDirectory() as folder:
    paths = [f'{folder}/clips.npy', f'{folder}/results.npz']
    np.save(paths[0], clips)
    done = subprocess.run(
      [sys.executable, '-I', run_alone.__file__, str(program), *paths],
      env=os.environ | {'JAX_PLATFORMS': 'cpu'},
      capture_output=True,
      text=True,
      check=False,
    )
    if done.returncode:
      cause = done.stderr.strip().splitlines() or [f'code {done.returncode}']
      raise UserError(
        f'{program.name} does not run with jax alone: {cause[-1]}. {_UNTOUCHED}'
      )
    return dict(np.load(paths[1]))


def _difference(
  found: Float[Array, 'n k'], expected: Float[Array, 'n k']
) -> float:
  expected = np.asarray(expected)
  return float(np.abs(found - expected).max() / np.abs(expected).max())


def judge(checks: list[Check]) -> None:
  """Raises a UserError where a check found too great a difference."""
  for check in checks:
    if not check.difference <= check.allowed:  # it may be NaN
      raise UserError(
        f'{check.name} gives other logits than the network: they differ by '
        f'{check.difference:.1e} of their scale, {check.allowed:.0e} is '
        f'allowed. {_UNTOUCHED} Try another checkpoint.'
      )
