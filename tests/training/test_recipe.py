"""What follows from the amount and the kind of the videos."""

import math

import pytest

from mtnet_jax.configs import finetune
from mtnet_jax.errors import UserError
from mtnet_jax.training import recipe
from mtnet_jax.training.recipe import Facts


def fitted(**changes):
  known = {
    'clips': 100,
    'validation': 20,
    'classes': ('run', 'walk'),
    'frames': 48.0,
    'rate': 24.0,
    'short_side': 240,
    'pretrained': True,
  }
  config = finetune.get_config()
  lines = recipe.fit(config, Facts(**known | changes))
  return config, ' '.join(lines)


@pytest.mark.parametrize(
  ('clips', 'devices', 'batch'),
  # An eighth, of powers of two; two at least, and one for each device.
  [(8, 1, 2), (20, 1, 2), (100, 1, 8), (300, 1, 32), (20_000, 1, 32),
   (100, 4, 8), (20, 8, 8), (300, 3, 30)],
)  # fmt: skip
def test_a_batch_is_an_eighth_of_the_clips(clips, devices, batch):
  config, _ = fitted(clips=clips, devices=devices)
  assert config.train.batch_size == batch


@pytest.mark.parametrize(
  ('clips', 'pretrained', 'steps'),
  # 100 epochs, or 150; within 300 and 6,000, 600 and 20,000.
  [(20, True, 1_000), (8, True, 400), (100, True, 1_250), (20_000, True, 6_000),
   (20, False, 1_500), (100, False, 1_875), (20_000, False, 20_000)],
)  # fmt: skip
def test_the_number_of_steps_has_a_floor_and_a_ceiling(
  clips, pretrained, steps
):
  config, _ = fitted(clips=clips, pretrained=pretrained)
  assert config.train.num_steps == steps
  assert config.optim.warmup_steps == steps // 20
  assert config.train.eval_every == steps // 10


@pytest.mark.parametrize(
  ('frames', 'rate', 'stride', 'views'),
  [
    (48, 24, 6, 2),  # 2 s: all of it, twice
    (50, 25, 6, 2),  # 48 of 50 frames
    (7, 25, 1, 2),  # shorter than a clip
    (300, 30, 11, 7),  # 10 s: 3 of them, 88 of 90 frames a clip
    (6_000, 25, 9, 10),  # four minutes
    (300, math.nan, 9, 8),  # as if it were 25 a second
  ],
)
def test_a_clip_covers_an_action(frames, rate, stride, views):
  config, _ = fitted(frames=frames, rate=rate)
  assert (config.data.frame_stride, config.eval.num_clips) == (stride, views)


def test_small_videos_are_not_enlarged():
  config, _ = fitted(pretrained=False, short_side=64)
  assert config.data.crop_size == config.eval.input_size == 56
  config, _ = fitted(pretrained=False, short_side=1080)
  assert config.data.crop_size == 112
  # Weights know their own size.
  config, _ = fitted(pretrained=True, short_side=64)
  assert config.data.crop_size == 112


def test_few_clips_leave_batch_norm_as_it_is():
  assert fitted(clips=40)[0].train.freeze_norm
  assert not fitted(clips=100)[0].train.freeze_norm
  assert not fitted(clips=40, pretrained=False)[0].train.freeze_norm
  # Eight on each of four devices, and two.
  assert not fitted(clips=300, devices=4)[0].train.freeze_norm
  assert fitted(clips=100, devices=4)[0].train.freeze_norm


def test_small_sets_are_augmented():
  shares = [fitted(clips=n)[0].data.augment_share for n in (500, 5_000, 5_001)]
  assert shares == [0.8, 0.4, 0.0]


@pytest.mark.parametrize(
  ('name', 'flips'),
  [('turn left', False), ('right_turn', False), ('bright', True),
   ('Step-Right', False), ('cleft', True)],
)  # fmt: skip
def test_sides_are_not_mirrored(name, flips):
  config, text = fitted(classes=(name, 'walk'))
  assert config.data.flip == flips
  assert (name in text) != flips


def test_without_validation_the_last_step_is_kept():
  config, text = fitted(validation=0)
  assert config.train.validation_split == ''
  assert 'no videos for validation' in text


def test_less_time_shortens_everything():
  config, _ = fitted()
  shorter = recipe.shorten(config, 200)
  assert shorter.train.num_steps == 200
  assert shorter.optim.warmup_steps == 10
  assert shorter.train.eval_every == shorter.train.checkpoint_every == 20
  assert config.train.num_steps == 1_250


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'classes': ('run',)}, "all of one class, 'run'"),
    ({'clips': 7}, '7 videos for training, and at least 8'),
  ],
)
def test_too_little(changes, message):
  with pytest.raises(UserError, match=message):
    fitted(**changes)


def test_nothing_is_promised_from_nothing():
  facts = Facts(70, 10, ('a', 'b'), 50, 25, 240, pretrained=False)
  text = recipe.expectations(facts)
  assert '70 clips' in text and 'docs/weights.md' in text
  import dataclasses

  assert not recipe.expectations(dataclasses.replace(facts, pretrained=True))
  assert not recipe.expectations(dataclasses.replace(facts, clips=50_000))
