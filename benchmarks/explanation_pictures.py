"""One clip as several networks explain it, a row for each and each method.

  python -m benchmarks.explanation_pictures --video=FILE --out=PNG RUN [RUN ...]

The rows are Saliency Tubes and Grad-CAM of the last layer, and the lowest level
of a Class Feature Pyramid of three steps where the network is a chain of
layers; each for the class that its network predicts, with the faithfulness that
`mtnet explain` reports: the score, and in brackets that of the same picture
moved to random places.
"""

from absl import app, flags

from mtnet_jax.explain import overlay
from mtnet_jax.explain.explainer import Settings, explain
from mtnet_jax.explain.explanation import METHODS, Explanation
from mtnet_jax.prediction import Predictor

_VIDEO = flags.DEFINE_string(
  'video', None, 'Video file to explain.', required=True
)
_OUT = flags.DEFINE_string('out', None, 'PNG file to write.', required=True)
_METHODS = ('saliency_tubes', 'class_feature_pyramids', 'grad_cam')


def main(argv: list[str]) -> None:
  """Draws the picture."""
  rows, found = {}, None
  for run in argv[1:]:
    predictor = Predictor(run)
    methods = list(_METHODS)
    if 'slowfast' in predictor.config.model.name:
      methods.remove('class_feature_pyramids')
    found = explain(predictor, _VIDEO.value, Settings(methods=methods))
    rows |= _rows(predictor.config.model.name, found)
  assert found is not None, 'name the folders of one run or more'
  overlay.write_strip(found.clip, rows, found.seconds, _OUT.value, found.title)


def _rows(network: str, found: Explanation) -> dict:
  """Blended clips by what stands above them."""
  rows = {}
  for method in _METHODS:
    tubes = [tube for tube in found.tubes if tube.method == method]
    if not tubes:
      continue
    tube = tubes[0] if method == 'class_feature_pyramids' else tubes[-1]
    words = f'{network}: {METHODS[method]}, {tube.class_name}'
    if tube.faithfulness is not None:
      own, chance = tube.faithfulness.score, tube.faithfulness.random_score
      words += f', {own:+.3f} ({chance:+.3f})'
    rows[words] = overlay.blend(found.clip, tube.saliency)
  return rows


if __name__ == '__main__':
  app.run(main)
