"""Writes the card of a model on Hugging Face's hub.

A card is Markdown with metadata in YAML at its top. Names of classes and data
may hold anything, so each character that has a meaning in Markdown is escaped.
"""

import re
import string
from collections.abc import Mapping
from typing import Any

import ml_collections
import yaml

from mtnet_jax import files, locations
from mtnet_jax.errors import UserError, printable
from mtnet_jax.export.program import LICENSE_NOTE

_LICENSE = re.compile(r'[A-Za-z0-9][A-Za-z0-9.+-]*')
_ODD = re.compile(r'[^\w.-]+', re.ASCII)  # in the id of a data set
_PUNCTUATION = re.compile(f'([{re.escape(string.punctuation)}])')
_MOST_CLASSES = 20  # that the card names


def check_license(license: str) -> None:
  """Raises a UserError unless a license is an SPDX identifier."""
  if not _LICENSE.fullmatch(license):
    raise UserError(
      f"--license (={license!r}) must be an SPDX identifier for the hub's card,"
      " such as apache-2.0 or cc-by-nc-4.0; 'other' where there is none."
    )


def read_summary(workdir: locations.Path) -> dict[str, Any] | None:
  """Reads the summary that `mtnet eval` writes.

  Args:
    workdir: the run's folder.

  Returns:
    The shares `top1` and `top5` and the number of `videos`, among others; None
    where the run was not evaluated.

  Raises:
    UserError: the file is damaged.
  """
  path = workdir / 'evaluation' / 'summary.json'
  try:
    summary = files.parse_json(path.read_text('utf-8'))
    shares = summary['top1'], summary['top5']
    if not all(type(s) in (int, float) and 0 <= s <= 1 for s in shares):
      raise ValueError(f'its accuracies are {shares}')
    if type(summary['videos']) is not int:
      raise ValueError(f'its number of videos is {summary["videos"]!r}')
  except FileNotFoundError:
    return None
  except OSError as error:
    raise UserError(
      f'{path} cannot be read: {locations.cause(error)}.'
    ) from error
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(
      f'{path} is damaged: {error!r}. Evaluate the run again with mtnet eval, '
      'or remove the file.'
    ) from error
  return summary


def write(
  config: ml_collections.ConfigDict,
  class_names: tuple[str, ...],
  data: str,
  step: int,
  license: str,
  summary: Mapping[str, Any] | None,
) -> str:
  """Returns a model's card.

  Args:
    config: the run's configuration.
    class_names: the names of the classes.
    data: the name of the data that the run was trained on; '' if it has none.
    step: the training step that the weights are of.
    license: the SPDX identifier of the weights' license, or 'unknown'.
    summary: the summary of `mtnet eval`, from `read_summary`; None: none.
  """
  data, name = data or 'unnamed data', config.model.name
  named = class_names[:_MOST_CLASSES]
  more = len(class_names) - len(named)
  lines = [f'* `{i}` {_escape(label)}' for i, label in enumerate(named)]
  if more:
    lines += [f'* and {more} more: `id2label` in `config.json`']
  return f"""---
{_metadata(config, data, license, summary)}---

# {name} trained on {_escape(data)}

A network of the library `mtnet_jax` (JAX and Flax), which tells the action that
a video shows. The weights are those of training step {step:,}.

## License

License of the weights: {license}. {LICENSE_NOTE}

## Data

{_escape(data)}, {len(class_names)} classes:

{chr(10).join(lines)}

A clip is {config.data.num_frames} frames {_places(config.data)}, \
{config.eval.input_size} × {config.eval.input_size} pixels; \
`preprocessor_config.json` says more.

## Metrics

{_describe_metrics(config, summary)}

## How to use

With this repository's id, or the path of a folder that holds its files:

```python
import mtnet_jax

predictor = mtnet_jax.load('OWNER/NAME')  # an id: pip install huggingface_hub
predictor('video.mp4').top(3)  # classes and probabilities
predictor.features(predictor.views('video.mp4'))  # pooled features of each view
predictor.model, predictor.variables  # the Flax module, and its weights
```
"""


def _places(data: ml_collections.ConfigDict) -> str:
  """Says where in a video the frames of a clip are."""
  if data.sampling == 'uniform':
    return 'spread over the whole video'
  wrapping = ', round its end,' if data.sampling == 'dense' else ''
  return f'at a stride of {data.frame_stride}{wrapping}'


def _metadata(config, data, license, summary) -> str:
  name = config.model.name
  lines = {
    'license': license.lower(),
    'library_name': 'mtnet_jax',
    'pipeline_tag': 'video-classification',
    'tags': ['video-classification', 'action-recognition', 'jax', 'flax', name],
  }
  if summary is not None:
    lines['metrics'] = ['accuracy']
    result = {
      'task': {'type': 'video-classification'},
      'dataset': {
        'type': _ODD.sub('-', data).strip('-') or 'unknown',
        'name': printable(data),
        'split': printable(config.eval.split),
      },
      'metrics': [
        {'type': 'accuracy', 'name': f'top-{k}', 'value': summary[f'top{k}']}
        for k in (1, 5)
      ],
    }
    lines['model-index'] = [{'name': name, 'results': [result]}]
  return yaml.safe_dump(lines, sort_keys=False, allow_unicode=True)


def _describe_metrics(config, summary) -> str:
  if summary is None:
    return 'This model was not evaluated.'
  missing = len(summary.get('not_scored') or ())
  more = (
    f' Not scored, since they cannot be read: {missing}.' if missing else ''
  )
  return f"""| | accuracy |
| --- | --- |
| top-1 | {summary['top1']:.1%} |
| top-5 | {summary['top5']:.1%} |

The run's last `mtnet eval` measured them on {summary['videos']} videos of the \
split "{_escape(config.eval.split)}".{more}"""


def _escape(text: str) -> str:
  """Returns a name as Markdown that shows it, on one line."""
  return _PUNCTUATION.sub(r'\\\1', printable(text))
