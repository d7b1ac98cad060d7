"""What networks say of clips of another shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtnet_jax import models
from mtnet_jax.errors import UserError
from mtnet_jax.models.network import check_clips

# Shapes, and what is to be done about them.
MISTAKES = [
  ((4, 32, 40, 3), r'add the batch axis with clips\[None\]'),
  ((2, 3, 4, 32, 40), r'the channels last with jnp\.moveaxis\(clips, 1, -1\)'),
  ((3, 4, 32, 40), r'with jnp\.moveaxis\(clips, 0, -1\)\[None\]'),
  ((2, 4, 32, 40, 1), 'give RGB clips with a batch axis and the channels last'),
  ((32, 40, 3), 'give RGB clips with a batch axis and the channels last'),
  ((1, 2, 4, 32, 40, 3), 'give RGB clips with a batch axis'),
]


@pytest.mark.parametrize('shape, mend', MISTAKES)
@pytest.mark.parametrize('name', models.NAMES)
def test_clips_of_another_shape(name, shape, mend):
  model = models.build(name, 5)
  given = str(shape).replace('(', r'\(').replace(')', r'\)')
  message = rf'shape \(n, t, h, w, c\) with c=3.*not {given}: .*{mend}'
  clips = jax.ShapeDtypeStruct(shape, jnp.float32)
  with pytest.raises(UserError, match=message):
    jax.eval_shape(model.init, jax.random.key(0), clips)
  with pytest.raises(UserError, match=message):
    jax.jit(model.apply).lower({}, clips)


def test_the_advice_mends_clips():
  for clips in (
    np.zeros((4, 32, 40, 3))[None],
    jnp.moveaxis(np.zeros((1, 3, 4, 32, 40)), 1, -1),
    jnp.moveaxis(np.zeros((3, 4, 32, 40)), 0, -1)[None],
  ):
    check_clips(clips)
    assert clips.shape == (1, 4, 32, 40, 3)
