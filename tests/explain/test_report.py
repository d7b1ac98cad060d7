"""The report is one file that holds everything and trusts no name."""

import base64
import dataclasses
import hashlib
import html.parser
import json
import re

import cv2
import numpy as np
import pytest

from mtnet_jax.errors import UserError
from mtnet_jax.explain import report
from mtnet_jax.explain.saliency_tubes import interpolate
from tests.explain import example


class _Page(html.parser.HTMLParser):
  """Elements of a page: attributes by tag, and text of scripts and styles."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.texts, self._inside = [], [], None
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    self._inside = tag

  def handle_endtag(self, tag):
    self._inside = None

  def handle_data(self, data):
    if self._inside in ('script', 'style'):
      self.texts.append(data)

  def all(self, tag):
    return [attributes for name, attributes in self.tags if name == tag]


def _write(tmp_path, explanation, files=None):
  path = report.write(explanation, tmp_path, files or {})
  text = path.read_text(encoding='utf-8')
  page = _Page(text)
  style, data, script = page.texts
  return text, page, style, json.loads(data), script


def _decode(map_, num_frames):
  data = np.frombuffer(base64.b64decode(map_['data']), np.uint8)
  return data.reshape(num_frames, map_['height'], map_['width'])


def test_the_policy_admits_our_own_script_and_style_only(tmp_path):
  _, page, style, _, script = _write(tmp_path, example.make())
  (policy,) = [m['content'] for m in page.all('meta') if 'http-equiv' in m]

  def digest(text):
    code = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{code}'"

  rules = dict(rule.strip().split(' ', 1) for rule in policy.split(';'))
  assert rules == {
    'default-src': "'none'",
    'img-src': 'data:',
    'style-src': digest(style),
    'script-src': digest(script),
    'base-uri': "'none'",
    'form-action': "'none'",
  }


def test_nothing_is_loaded_from_elsewhere(tmp_path):
  text, page, *_ = _write(tmp_path, example.make())
  for _, attributes in page.tags:
    assert not {'src', 'href', 'srcset'} & set(attributes)
  assert '@import' not in text and 'url(' not in text
  assert '{{' not in text


def test_names_cannot_break_out(tmp_path):
  explanation = dataclasses.replace(
    example.make(example.HOSTILE), title=example.HOSTILE + '{{data}}'
  )
  text, page, _, data, _ = _write(tmp_path, explanation)
  assert len(page.all('script')) == text.count('</script>') == 2
  assert '<!--' not in text
  assert data['className'] == example.HOSTILE
  assert data['title'] == example.HOSTILE + '{{data}}'


def test_names_of_any_letters(tmp_path):
  # Letters that turn lines around or end them, and a byte that is no UTF-8,
  # are written out.
  name = 'größe 波\u202e\u2028\udcff'
  explanation = dataclasses.replace(example.make(name), title=name)
  *_, data, _ = _write(tmp_path, explanation)
  want = 'größe 波\\u202e\\u2028\\udcff'
  assert data['className'] == data['title'] == data['bars'][0]['name'] == want
  assert f'“{want}”' in data['tubes'][0]['faithfulness']['sentence']


def test_a_long_name_loses_its_middle(tmp_path):
  name = 'a' * 150 + 'b' * 150
  *_, data, _ = _write(tmp_path, example.make(name))
  short = 'a' * 40 + '…' + 'b' * 40
  assert data['className'] == data['tubes'][0]['className'] == short
  assert data['bars'][0]['name'] == short
  assert data['bars'][0]['wholeName'] == name
  assert short in data['tubes'][0]['faithfulness']['sentence']


def test_frames_and_saliency_come_back(tmp_path):
  explanation = example.make()
  *_, data, _ = _write(tmp_path, explanation)
  assert len(data['frames']) == 8 and data['rate'] == pytest.approx(10)
  for url, frame in zip(data['frames'], explanation.clip, strict=True):
    kind, content = url.split(',')
    assert kind == 'data:image/png;base64'  # flat colors: smaller than a JPEG
    content = np.frombuffer(base64.b64decode(content), np.uint8)
    got = cv2.imdecode(content, cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(got, frame)
  for shown, tube in zip(data['tubes'], explanation.tubes, strict=True):
    got = _decode(shown['map'], 8)
    np.testing.assert_allclose(got / 255, tube.saliency, atol=0.5 / 255 + 1e-6)


def test_saliency_is_embedded_small(tmp_path):
  clip = np.zeros((2, 96, 192, 3), np.uint8)
  explanation = example.make(clip=clip)
  *_, data, _ = _write(tmp_path, explanation)
  got = _decode(data['tubes'][0]['map'], 2)
  assert got.shape == (2, 32, 64)
  want = explanation.tubes[0].saliency.reshape(2, 32, 3, 64, 3).mean((2, 4))
  np.testing.assert_allclose(got / 255, want, atol=1 / 255)


def test_a_channel_s_tube_is_placed_as_those_of_layers(tmp_path):
  explanation = example.make()
  low = np.random.default_rng(0).random((2, 4, 6))
  first = next(iter(explanation.node_tubes))
  explanation = dataclasses.replace(explanation, node_tubes={first: low})
  *_, data, _ = _write(tmp_path, explanation)
  nodes = [n for c in data['graph']['columns'] for n in c['nodes']]
  (shown,) = [node['map'] for node in nodes if node['map']]
  # 12 points of 48 pixels, each the mean of 4 × 4 of them.
  fine = interpolate(low, (8, 48, 48))
  want = fine.reshape(8, 12, 4, 12, 4).mean((2, 4))
  np.testing.assert_allclose(_decode(shown, 8) / 255, want, atol=0.01)


def test_bars_are_the_five_likeliest_and_the_explained_class(tmp_path):
  explanation = dataclasses.replace(example.make(), label=5)
  *_, data, _ = _write(tmp_path, explanation)
  shown = [(b['name'], b['rank'], b['percent']) for b in data['bars']]
  assert shown == [
    ('wave', 1, '75\u00a0%'),
    ('push', 2, '10\u00a0%'),
    ('jump', 3, '5\u00a0%'),
    ('hug', 4, '4\u00a0%'),
    ('sit_down', 5, '3\u00a0%'),
    ('stand_up', 7, '1\u00a0%'),
  ]
  assert [b['isExplained'] for b in data['bars']] == 5 * [False] + [True]


def test_headings_know_their_level_s_tube(tmp_path):
  *_, data, _ = _write(tmp_path, example.make())
  for column in data['graph']['columns']:
    tube = data['tubes'][column['tube']]
    assert tube['method'] == 'class_feature_pyramids'
    assert tube['layer'] == column['layer']


def test_without_pyramid_tubes_and_tests(tmp_path):
  explanation = dataclasses.replace(
    example.make(), pyramid=None, tubes=(), node_tubes={}
  )
  *_, data, _ = _write(tmp_path, explanation)
  assert data['graph'] is None and data['tubes'] == []


def test_links_are_quoted(tmp_path):
  files = {'<a>, GIF': 'a b/ü#1?.gif', 'x, PNG': 'javascript:alert(1)'}
  *_, data, _ = _write(tmp_path, example.make(), files)
  links = [link for group in data['files'] for link in group['links']]
  assert [link['href'] for link in links] == [
    './a%20b/%C3%BC%231%3F.gif',
    './javascript%3Aalert%281%29',
  ]


def test_links_are_grouped_by_method_and_layers_come_last(tmp_path):
  files = {
    'Grad-CAM, PNG': 'a.png',
    'Grad-CAM, stage_1, MP4': 'b.mp4',
    'Grad-CAM, last, MP4': 'c.mp4',
    'Grad-CAM, GIF': 'd.gif',
    'Saliency, NumPy': 'e.npz',
  }
  *_, data, _ = _write(tmp_path, example.make(), files)
  got = {
    group['name']: [
      (link['kind'], link['layer'], link['href']) for link in group['links']
    ]
    for group in data['files']
  }
  assert got == {
    'Grad-CAM': [
      ('PNG', '', './a.png'),
      ('GIF', '', './d.gif'),
      ('MP4', 'stage_1', './b.mp4'),
      ('MP4', 'last activations', './c.mp4'),
    ],
    'Saliency': [('NumPy', '', './e.npz')],
  }
  assert data['files'][0]['links'][3]['words'] == (
    'Grad-CAM, last activations, MP4'
  )


def test_the_last_activations_are_called_so(tmp_path):
  explanation = example.make()
  tubes = [
    dataclasses.replace(tube, layer=layer)
    for tube, layer in zip(
      explanation.tubes, ('stage_4_block_1/project', 'last'), strict=False
    )
  ]
  explanation = dataclasses.replace(explanation, tubes=tuple(tubes))
  *_, data, _ = _write(tmp_path, explanation)
  layers = [tube['layer'] for tube in data['tubes']]
  assert layers == ['stage_4_block_1/project', 'last activations']


def test_a_large_clip_makes_a_small_file(tmp_path):
  rng = np.random.default_rng(0)
  coarse = rng.integers(0, 256, (16, 16, 16, 3), np.uint8)
  clip = np.stack([cv2.resize(frame, (256, 256)) for frame in coarse])
  clip = np.clip(clip + rng.normal(0, 6, clip.shape), 0, 255).astype(np.uint8)
  explanation = example.make(clip=clip, num_nodes=11)
  tubes = (explanation.tubes * 2)[:14]
  explanation = dataclasses.replace(explanation, tubes=tubes)
  path = report.write(explanation, tmp_path)
  assert path.stat().st_size < 3_000_000


def test_a_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('not a folder')
  with pytest.raises(UserError, match=r'report\.html cannot be written'):
    report.write(example.make(), tmp_path / 'file')


@pytest.mark.parametrize(
  'deletion, insertion, kind, words',
  [
    (3, 3, 'believe', 'Believe it: '),
    (3, 1, 'doubt', 'Take it with care: only one of the two tests'),
    (1, 3, 'doubt', 'Take it with care: only one of the two tests'),
    (1, 1, 'chance', 'No better than chance'),
    # Better than the mean of the random places, and not than their best.
    (1.4, 1.4, 'chance', 'No better than chance'),
    (0.2, 0.2, 'chance', 'No better than chance'),
  ],
)
def test_verdict(deletion, insertion, kind, words):
  curves = example.powers(deletion, insertion)
  got, sentence = report.verdict(curves, 'wave')
  assert got == kind and sentence.startswith(words)
  assert 'plain spot' not in sentence
  # The mean of 0.8 · x ** power is 0.8 / (power + 1).
  removed = f'{80 / (deletion + 1):.0f} %'
  shown = f'{80 - 80 / (insertion + 1):.0f} %'
  sentence = sentence.replace('\u00a0', ' ')
  # The three places have powers from 1/2 to 3/2.
  assert (
    f'leaves “wave” {removed} on average; with the picture moved to 3 random '
    'places, 32 % to 53 %.'
  ) in sentence
  assert f'{shown}; with the picture moved, 27 % to 48 %.' in sentence


def test_it_opens_on_the_best_picture_that_is_believed(tmp_path):
  made = example.make()
  untested, *others = (
    dataclasses.replace(tube, faithfulness=None) for tube in made.tubes
  )

  def opens_on(*powers):
    tested = [
      dataclasses.replace(tube, faithfulness=example.powers(*power))
      for tube, power in zip(others, powers, strict=False)
    ]
    tubes = (untested, *tested)
    path = report.write(dataclasses.replace(made, tubes=tubes), tmp_path)
    return json.loads(
      re.search(r'"opensOn": (\w+)', path.read_text(encoding='utf-8'))[1]
    )

  assert opens_on((3, 3), (4, 4), (5, 1)) == 2  # the last is not believed
  assert opens_on((3, 1), (1, 1)) is None


@pytest.mark.parametrize(
  'spot, is_beaten',
  [
    ((3, 3), False),
    ((9, 9), False),
    ((9, 1), True),  # 0.08 and 0.4 make less than 0.2 and 0.6
    # 0.02 less at each is little, 0.03 is more.
    ((0.8 / 0.22 - 1, 0.8 / 0.22 - 1), False),
    ((0.8 / 0.23 - 1, 0.8 / 0.23 - 1), True),
  ],
)
def test_a_plain_spot_in_the_middle_is_to_be_beaten(spot, is_beaten):
  kind, sentence = report.verdict(example.powers(3, 3, spot=spot), 'wave')
  assert kind == ('believe' if is_beaten else 'doubt')
  assert ('care: a plain spot in the middle' in sentence) != is_beaten


def test_one_test_and_no_more_than_a_plain_spot():
  kind, sentence = report.verdict(example.powers(3, 1, spot=(3, 1)), 'wave')
  assert kind == 'doubt'
  assert 'better than chance, and a plain spot in the middle' in sentence


def test_verdict_of_a_class_without_probability():
  kind, sentence = report.verdict(example.powers(3, 3, whole=0.03), 'wave')
  assert kind == 'unclear' and 'cannot tell' in sentence


def test_verdict_of_a_class_that_an_empty_clip_has():
  curves = example.powers(3, 3)
  curves = dataclasses.replace(
    curves, deletion=curves.deletion[::-1], insertion=curves.insertion[::-1]
  )
  kind, sentence = report.verdict(curves, 'wave')
  assert kind == 'unclear'
  sentence = sentence.replace('\u00a0', ' ')
  assert 'gives “wave” 0 % for the whole clip, and 80 % for' in sentence


def test_percent():
  got = [report.percent(p) for p in (0, 0.004, 0.01, 0.456, 1)]
  assert [g.replace('\u00a0', ' ') for g in got] == [
    '0 %', '< 1 %', '1 %', '46 %', '100 %',
  ]  # fmt: skip
