"""What kind of folder holds a model, and how does it become a predictor?"""

import os

from mtnet_jax.prediction.predictor import Predictor


def load(path: str | os.PathLike, checkpoint: str = 'best') -> Predictor:
  """Returns the predictor of a trained model.

  Args:
    path: folder of a run, or of an exported model.
    checkpoint: of a run, 'best' (on validation) or 'last'.

  Returns:
    The predictor: call it with a video. That of a run also has the network,
    `.model`, and its `.variables`.

  Raises:
    UserError: there is no model, or its files are damaged.
  """
  # A folder of another kind would be told apart from these two here.
  return Predictor(path, checkpoint)
