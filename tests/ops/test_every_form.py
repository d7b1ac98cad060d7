"""Every form of every operation against its definition in float64.

Values and gradients, at odd sizes, in float32 and bfloat16. A form's cases of
one operation are one program: compiling is what takes time here. The
definitions are held to loops and hand-worked cases by the files beside this.
"""

import functools
import math
import pathlib
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax.ops import (
  batch_norm,
  forms,
  frame_selection,
  native,
  soft_pool,
  tree_norm,
)
from tests.arrays import random_clips
from tests.ops import any_form
from tests.ops.operation_cases import KERNELS, OPERATIONS

# Largest error over the largest value, of values and of gradients. bfloat16
# has 8 bits, of the arguments exactly the reference's.
SINGLE, HALF = (1e-5, 1e-5), (2**-6, 2**-5)


def values_and_gradients(case, *arrays):
  """What a case gives, and the gradients of a random sum of it."""
  function, floats = case.differentiable(arrays)
  y, vjp = jax.vjp(function, *floats)
  leaves, tree = jax.tree.flatten(y)
  cotangents = [
    jnp.asarray(random_clips(*leaf.shape, seed=9 + i), leaf.dtype)
    for i, leaf in enumerate(leaves)
  ]
  return leaves, vjp(jax.tree.unflatten(tree, cotangents))


def run(cases, arrays):
  results = []
  for case, own in zip(cases, arrays, strict=True):
    # On a TPU columns of even number lie side by side.
    width = own[0].shape[-2]
    with forms.side_by_side(width // math.gcd(width, 8)):
      results.append(values_and_gradients(case, *own))
  return results


def cast(cases, dtype):
  return [
    tuple(
      jnp.asarray(a, dtype) if a.dtype == np.float32 else a for a in case.arrays
    )
    for case in cases
  ]


@functools.cache
def reference(name, dtype):
  """Of the definition in float64, of arguments that `dtype` has exactly."""
  cases = OPERATIONS[name]
  rounded = jax.tree.map(np.asarray, cast(cases, dtype))
  with jax.enable_x64(True):
    wide = jax.tree.map(
      lambda a: a if a.dtype == np.int32 else np.float64(a), rounded
    )
    compiled = any_form.quick_jit(functools.partial(run, cases), 'definition')
    return jax.tree.map(np.asarray, compiled(wide))


def check(name, form, dtype, bounds):
  wanted = reference(name, dtype)
  chosen = [
    (case, ref)
    for case, ref in zip(OPERATIONS[name], wanted, strict=True)
    if case.of_all or form == 'cpu_kernel'
  ]
  cases, wanted = zip(*chosen, strict=True)
  got = any_form.jit(functools.partial(run, cases), form)(cast(cases, dtype))
  for i, (mine, other) in enumerate(zip(got, wanted, strict=True)):
    for bound, a, b in zip(bounds, mine, other, strict=True):
      for own, ref in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        own = np.float64(own)
        assert own.shape == ref.shape
        error, largest = np.abs(own - ref).max(), np.abs(ref).max()
        assert error <= bound * largest, (
          f'case {i}, {ref.shape}: {error:.1e} of {largest:.1e}'
        )


CONVOLUTIONS = [
  n for n in OPERATIONS if n.startswith(('separated', 'dense', 'grouped'))
]
# The operations that have each form; others would take the next best again.
OF_FORM = {
  'xla': [name for name in OPERATIONS if name not in CONVOLUTIONS],
  'cpu': [*CONVOLUTIONS, 'up_sample', 'gather_frames', 'max_pool'],
  'onnx': ['separated_strided', 'dense', 'grouped', 'max_pool'],
  'cpu_kernel': list(KERNELS),
  'gpu': ['gru', 'other_cells'],
  'tpu': [
    *CONVOLUTIONS,
    *(n for n in OPERATIONS if n.startswith(('mean', 'norm', 'scale'))),
    *(
      'add_and_rectify',
      'fork',
      'gather_frames',
      'join',
      'split',
      'soft_pool',
      'soft_pool_of_some_frames',
    ),
  ],
}
ROWS = [(name, form) for form, names in OF_FORM.items() for name in names]


@pytest.mark.parametrize(('name', 'form'), ROWS)
def test_single_precision(name, form, called_kernels):
  if form == 'cpu_kernel' and not native.available():
    pytest.skip('there is no C++ compiler')
  check(name, form, jnp.float32, SINGLE)
  assert called_kernels == set(KERNELS[name] if form == 'cpu_kernel' else [])


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'form'),
  [
    ('separated_strided', 'cpu'),
    ('dense', 'cpu'),
    ('grouped', 'cpu'),
    ('grouped', 'tpu'),
    ('soft_pool', 'xla'),
    ('soft_pool', 'cpu_kernel'),  # kernels know float32 alone
    ('up_sample', 'xla'),
    ('up_sample', 'cpu'),
    ('gather_frames', 'xla'),
    ('norm_relu', 'xla'),
    ('norm_relu', 'cpu_kernel'),
    ('scale_relu', 'xla'),
    ('separated_strided', 'tpu'),
    ('norm_relu', 'tpu'),
  ],
)
def test_half_precision(name, form, called_kernels):
  check(name, form, jnp.bfloat16, HALF)
  assert not called_kernels


@any_form.each
def test_tree_norm(form, called_kernels):
  shapes = [(), (3,), (40, 41), (16,), (0,), (5000,)]
  leaves = [random_clips(*shape, seed=i) for i, shape in enumerate(shapes)]
  got = any_form.jit(tree_norm.tree_norm, form)(leaves)
  wanted = sum(np.sum(np.float64(a) ** 2) for a in leaves) ** 0.5
  np.testing.assert_allclose(got, wanted, rtol=1e-6)
  assert called_kernels == ({'square_sum'} if form == 'cpu_kernel' else set())


@any_form.each
@pytest.mark.parametrize('frames', [1, 2, 7, 8])
def test_select_frames(frames, form):
  """By counting, for each frame, those that come before it."""
  x = random_clips(5, frames, 3, 4, 6)
  x[-1] = x[-1, :1]  # alike: the earlier ones are kept
  x[-2] = 0
  indices = any_form.jit(frame_selection.select_frame_indices, form)(x)
  assert indices.dtype == jnp.int32
  scores = np.float64(frame_selection.triplet_scores(x))
  scores[-2:] = 0  # what rounding leaves of equal ones
  keep = max(1, frames // 2)
  for own, clip in zip(np.asarray(indices), scores, strict=True):
    below = [
      sum((s, j) < (clip[i], i) for j, s in enumerate(clip))
      for i in range(frames)
    ]
    assert own.tolist() == [i for i in range(frames) if below[i] < keep]


@any_form.each
def test_select_frames_with_a_nan(form):
  """What is no number comes last."""
  x = random_clips(1, 8, 2, 2, 3)
  x[0, 0] = np.nan
  assert 0 not in np.asarray(
    any_form.jit(frame_selection.select_frame_indices, form)(x)
  )


@any_form.each
def test_soft_pool_far_from_zero(form):
  """Of elements that are far apart the largest remains, and none overflows."""
  x = np.zeros((1, 1, 2, 2, 4), np.float32)
  x[0, 0, :, :, 0] = [[1e4, -1e4], [0, 0]]
  x[0, 0, :, :, 1] = [[3e38, -3e38], [0, 0]]
  x[0, 0, :, :, 2] = -1e30
  x[0, 0, :, :, 3] = [[88, 89], [88, 89]]
  y = any_form.jit(soft_pool.soft_pool, form)(x)
  e = np.exp(1.0)
  wanted = [1e4, 3e38, -1e30, (88 + 89 * e) / (1 + e)]
  np.testing.assert_allclose(y.ravel(), wanted, rtol=1e-6)


@any_form.each
def test_norm_of_a_constant_channel(form):
  """It becomes the bias; its gradient is finite."""
  x = np.full((1, 2, 3, 3, 5), 0.1, np.float32)
  one, two = np.ones(5, np.float32), np.full(5, 2, np.float32)

  def normalize(x):
    return batch_norm.normalize(x, one, two, 0 * one, 1e-5, None, x.dtype)

  y, mean_, variance = any_form.jit(normalize, form)(x)
  np.testing.assert_allclose(y, 2, rtol=1e-4)
  np.testing.assert_allclose(mean_, 0.1, rtol=1e-6)
  np.testing.assert_allclose(variance, 0, atol=1e-9)
  dx = any_form.jit(jax.grad(lambda x: (normalize(x)[0] ** 3).sum()), form)(x)
  np.testing.assert_allclose(dx, 0, atol=1e-2)  # of 12 · sqrt(1e5)


@pytest.mark.parametrize(('mean', 'near'), [(10, 0), (100, 99)])
@any_form.each
def test_norm_of_a_mean_far_from_zero(form, mean, near):
  """E[x²] - E[x]² loses digits; they are to be few, near the mean or not."""
  x = np.float32(mean + np.random.default_rng(0).normal(size=(1, 50_000, 4)))
  one = np.ones(4, np.float32)

  def normalize(x):
    return batch_norm.normalize(
      x, one, 0 * one, near * one, 1e-5, None, x.dtype
    )

  _, mean_, variance = any_form.jit(normalize, form)(x)
  wide = np.float64(x)[0]
  np.testing.assert_allclose(mean_[0], wide.mean(0), rtol=1e-5)
  np.testing.assert_allclose(variance[0], wide.var(0), rtol=2e-4)


def test_the_table_of_kernels_is_complete():
  """Every kernel is called by an operation above."""
  named = {kernel for kernels in KERNELS.values() for kernel in kernels}
  assert named | {'select_frames', 'square_sum'} == set(native.FUNCTIONS)


_COMPILERS = pathlib.Path(__file__).parents[2] / '.venv-aot/bin/python'


@pytest.mark.slow
@pytest.mark.skipif(
  not _COMPILERS.exists(),
  reason='.venv-aot, which `make test-slow` makes, is not here',
)
@pytest.mark.parametrize(
  ('target', 'form'), [('v5e:1x1', 'tpu'), ('h100', 'gpu')]
)
def test_forms_for_accelerators_compile(target, form):
  """Their compilers refuse, or do not survive, what a CPU's takes."""
  command = [_COMPILERS, '-m', 'tests.ops.compile_forms', target, form]
  done = subprocess.run(
    [*command, *OF_FORM['tpu']],
    cwd=_COMPILERS.parents[2],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  assert int(done.stdout.split()[-1]) > 1000
