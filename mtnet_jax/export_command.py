"""What `export.py` does with a run: writes it, and checks what it wrote."""

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

from mtnet_jax import export, export_onnx, run_exported
from mtnet_jax.checkpoints import Checkpoints, make_workdir
from mtnet_jax.errors import UserError
from mtnet_jax.prediction import Predictor
from mtnet_jax.typing import Float, UInt8

# Greatest difference of logits, of their scale. Half precision rounds wherever
# a compiler ends a fusion, which for constant weights may be elsewhere.
_EXACT, _ROUNDED = 1e-5, 3e-3
_ONNX_TOLERANCE = 1e-4
_UNTOUCHED = 'It was not put in place; an earlier export stays as it was.'


@dataclasses.dataclass(frozen=True)
class Check:
  """How one way to run a model compares with the model itself.

  Attributes:
    name: of the file that was run.
    difference: the greatest of the logits, of their scale.
    allowed: such a difference.
    milliseconds: the median for one clip.
    original: the same of the model itself.
  """

  name: str
  difference: float
  allowed: float
  milliseconds: float
  original: float


def run(
  workdir: str | pathlib.Path,
  out: str | pathlib.Path,
  checkpoint: str = 'best',
  license: str | None = None,
  onnx: bool = False,
) -> list[Check]:
  """Exports a checkpoint of a run and checks the files.

  Args:
    workdir: of the run.
    out: folder to write to, made if need be.
    checkpoint: 'best' (on validation) or 'last'.
    license: of the weights; None: unknown.
    onnx: also writes `model.onnx`.

  Returns:
    The checks, of the program and perhaps of the ONNX file.

  Raises:
    UserError: there is nothing to export, it cannot be written, JAX has no CPU
      to check it on, or what was written is not the same network. An earlier
      export in the folder stays as it was.
  """
  cpu = _cpu()
  if onnx:
    export_onnx.find_packages()
  predictor, step = _load(pathlib.Path(workdir), checkpoint)
  model, config = predictor.model, predictor.config
  variables = jax.device_put(jax.device_get(predictor.variables), cpu)
  out = make_workdir(out)
  export.check_place(out)
  shape, converted = export.clip_shape(config), None
  if onnx:
    converted = export_onnx.convert(model, variables, shape)
  checks = []

  def check(folder: pathlib.Path) -> None:
    program = folder / export.PROGRAM
    with jax.default_device(cpu):
      checks.append(check_program(program, model, variables, shape))
      if onnx:
        checks.append(check_onnx(converted, model, variables, shape))
    _judge(checks)

  export.write(
    *(out, model, variables, config, predictor.class_names, step),
    license=license,
    onnx=converted,
    check=check,
  )
  return checks


def show(checks: list[Check], out: str | pathlib.Path) -> None:
  """Prints the sizes of the files, and the checks."""
  for path in sorted(pathlib.Path(out).iterdir()):
    if path.name in export.FILES:
      print(f'{path}  {path.stat().st_size / 1e6:.2f} MB')
  for check in checks:
    print(
      f'{check.name}: {check.milliseconds:.1f} ms a clip, the network itself '
      f'{check.original:.1f} ms; logits differ by {check.difference:.1e} of '
      f'their scale, {check.allowed:.0e} is allowed'
    )


def check_program(
  program: pathlib.Path,
  model: nn.Module,
  variables: dict,
  clip_shape: tuple[int, int, int, int],
) -> Check:
  """Runs an exported program in a fresh process, beside the network itself.

  Both on the CPU: there products of float32 are not rounded, and the fresh
  process needs no accelerator, which this one may hold.

  Args:
    program: path of `model.stablehlo`.
    model: that it is of.
    variables: likewise, on the CPU.
    clip_shape: `(t, s, s, 3)`.

  Raises:
    UserError: the program does not run, or needs more than jax and numpy.
  """
  clips = random_clips(3, clip_shape)
  found = _in_fresh_process(program, clips)
  original = jax.jit(functools.partial(export.classify, model))
  expected = original(variables, clips)[0], original(variables, clips[:1])[0]
  return Check(
    program.name,
    max(map(_difference, (found['all'], found['one']), expected)),
    _EXACT if model.dtype == np.float32 else _ROUNDED,
    float(found['milliseconds']),
    run_exported.milliseconds(
      functools.partial(original, variables), clips[:1]
    ),
  )


def check_onnx(
  contents: bytes,
  model: nn.Module,
  variables: dict,
  clip_shape: tuple[int, int, int, int],
) -> Check:
  """Runs an ONNX file in ONNX Runtime, beside the network itself.

  Args:
    contents: from `export_onnx.convert`.
    model: that it is of.
    variables: likewise.
    clip_shape: `(t, s, s, 3)`.
  """
  classify = export_onnx.load(contents)
  original = functools.partial(
    jax.jit(functools.partial(export.classify, export_onnx.as_float32(model))),
    variables,
  )
  clips = np.split(random_clips(3, clip_shape), 3)
  return Check(
    export.ONNX,
    max(_difference(classify(clip), original(clip)[0]) for clip in clips),
    _ONNX_TOLERANCE,
    run_exported.milliseconds(classify, clips[0]),
    run_exported.milliseconds(original, clips[0]),
  )


def random_clips(
  count: int, clip_shape: tuple[int, int, int, int]
) -> UInt8[np.ndarray, 'n t s s 3']:
  """Clips of colored blocks, other ones in each frame.

  In white noise all frames have the same mean, and rounding alone would tell
  which of them a network keeps.

  Args:
    count: clips.
    clip_shape: `(t, s, s, 3)`.
  """
  frames, size, _, _ = clip_shape
  rng = np.random.default_rng(0)
  blocks = rng.integers(0, 256, (count, frames, 4, 4, 3), np.uint8)
  place = np.arange(size) * 4 // size
  return blocks[:, :, place][:, :, :, place]


def _cpu() -> jax.Device:
  try:
    return jax.devices('cpu')[0]
  except RuntimeError as error:
    platforms = jax.config.jax_platforms
    raise UserError(
      'An export is checked on the CPU, which JAX_PLATFORMS='
      f'{platforms} leaves out: set JAX_PLATFORMS={platforms},cpu.'
    ) from error


def _load(workdir: pathlib.Path, checkpoint: str) -> tuple[Predictor, int]:
  """A run's model, and the step that its weights are of."""
  before = _step(workdir, checkpoint)
  predictor = Predictor(workdir, checkpoint)
  if predictor.model is None:
    raise UserError(
      f'{workdir} holds an exported model and no checkpoint. Give the '
      '--workdir of the run that it was exported from.'
    )
  step = _step(workdir, checkpoint)
  if step != before:
    raise UserError(
      f'{workdir} got a new {checkpoint} checkpoint just now, of step {step}: '
      'it is being trained. Give the same command again.'
    )
  return predictor, step


def _step(workdir: pathlib.Path, checkpoint: str) -> int | None:
  if not (workdir / 'checkpoints').is_dir():
    return None
  with Checkpoints(workdir, read_only=True) as checkpoints:
    steps = {'best': checkpoints.best_step, 'last': checkpoints.last_step}
    return steps.get(checkpoint)


def _in_fresh_process(
  program: pathlib.Path, clips: np.ndarray
) -> dict[str, np.ndarray]:
  with tempfile.TemporaryDirectory() as folder:
    paths = [f'{folder}/clips.npy', f'{folder}/results.npz']
    np.save(paths[0], clips)
    done = subprocess.run(
      [sys.executable, '-I', run_exported.__file__, str(program), *paths],
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
  found: Float[np.ndarray, 'n k'], expected: Float[np.ndarray, 'n k']
) -> float:
  expected = np.asarray(expected)
  return float(np.abs(found - expected).max() / np.abs(expected).max())


def _judge(checks: list[Check]) -> None:
  for check in checks:
    if not check.difference <= check.allowed:  # it may be NaN
      raise UserError(
        f'{check.name} gives other logits than the network: they differ by '
        f'{check.difference:.1e} of their scale, {check.allowed:.0e} is '
        f'allowed. {_UNTOUCHED} Try another checkpoint.'
      )
