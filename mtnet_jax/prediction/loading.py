"""Loads a model by a path, or by its name on Hugging Face's hub."""

import os
import re

from mtnet_jax.errors import UserError
from mtnet_jax.export import hub
from mtnet_jax.prediction.predictor import Predictor

# A model of Hugging Face's hub: owner/name.
_HUB_ID = re.compile(r'[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*', re.ASCII)


def load(path: str | os.PathLike, checkpoint: str = 'best') -> Predictor:
  """Returns the predictor of a trained model.

  Args:
    path: the folder of a run, of an exported model or of a model in the form of
      Hugging Face's hub; or, where there is no such folder, the id of a model
      on the hub, `'owner/name'`, which is downloaded.
    checkpoint: the checkpoint of a run: 'best' (on validation) or 'last'.

  Returns:
    The predictor: call it with a video. That of a run or of a hub folder also
    has the network, `.model`, its `.variables`, and `.features(clips)`.

  Raises:
    UserError: there is no model, its files are damaged, or it cannot be
      downloaded.
  """
  name = os.fspath(path)
  if _HUB_ID.fullmatch(name) and not os.path.lexists(name):
    path = _download(name)
  return Predictor(path, checkpoint)


def _download(name: str) -> str:
  """Returns the folder with the files of a model on the hub."""
  try:
    import huggingface_hub
  except ImportError as error:
    raise UserError(
      f"There is no folder {name}. If it is a model of Hugging Face's hub, "
      'downloading it takes one more package: pip install "mtnet_jax[hub]".'
    ) from error
  try:
    return huggingface_hub.snapshot_download(name, allow_patterns=[*hub.NEEDED])
  except Exception as error:  # of the package, and of those that it uses
    why = ' '.join((str(error) or repr(error)).split()).rstrip('.')
    raise UserError(
      f"There is no folder {name}, and no model {name} of Hugging Face's hub "
      f'can be downloaded: {why}. Check the name and the network, or copy the '
      "model's files here and give their folder."
    ) from error
