"""The picture of a data set."""

import matplotlib.image
import pytest

from mtnet_jax.data import report_drawing
from mtnet_jax.data.probing import Probe
from mtnet_jax.errors import UserError


@pytest.mark.parametrize('classes', [1, 15, 400])
def test_the_picture_grows_with_the_classes(tmp_path, classes):
  good = [Probe(i, '', 0, 100 + i, 4 + i / 25, 240, 320 + i) for i in range(30)]
  broken = [Probe(i, '', 0, cause=f'${i}$') for i in range(3)]
  counts = {f'${i}$ {"long " * 9}': i for i in range(classes)}
  path = tmp_path / 'a.png'
  report_drawing.draw(good + broken, counts, '$x$', path)
  height, width = matplotlib.image.imread(path).shape[:2]
  assert width == 1600
  rows = {1: 3, 15: 8, 400: 80}[classes]
  assert height == pytest.approx(400 + 15.5 * rows, abs=2)


def test_a_picture_of_nothing(tmp_path):
  broken = [Probe(0, '', 0, cause='gone')]
  report_drawing.draw(
    broken, {'a': 0}, 'nothing can be read', tmp_path / 'a.png'
  )
  with pytest.raises(UserError, match=r'nowhere/a\.png cannot be written'):
    report_drawing.draw(broken, {'a': 0}, '', tmp_path / 'nowhere/a.png')
