"""The report works in a real browser, from disk, with keys and fingers."""

import base64
import dataclasses
import shutil

import cv2
import numpy as np
import pytest

from mtnet_jax.explain import overlay, report
from tests.explain import example

pytestmark = pytest.mark.slow

_BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')
# It talks to nobody, and needs no rights.
_FLAGS = (
  '--no-sandbox',
  '--disable-gpu',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
)
_DESKTOP = {'width': 1280, 'height': 900}
_PHONE = {'width': 360, 'height': 740}


@pytest.fixture(scope='module')
def browser():
  """A browser without a window."""
  playwright = pytest.importorskip('playwright.sync_api')
  paths = filter(None, map(shutil.which, _BROWSERS))
  path = next(paths, None)
  if path is None:
    pytest.skip(f'there is none of {", ".join(_BROWSERS)}')
  with playwright.sync_playwright() as driver:
    browser = driver.chromium.launch(executable_path=path, args=_FLAGS)
    yield browser
    browser.close()


@pytest.fixture
def open_report(browser, tmp_path):
  """A function `(explanation, **context options)` that returns the page.

  At the end, no page may have complained, opened a dialog or asked a network.
  """
  contexts, faults = [], []

  def requested(request):
    if not request.url.startswith(('file:', 'data:', 'blob:')):
      faults.append(f'request: {request.url}')

  def asked(dialog):
    faults.append(f'dialog: {dialog.message}')
    dialog.dismiss()

  def open_(explanation=None, **options):
    options = {'viewport': _DESKTOP, 'reduced_motion': 'reduce'} | options
    path = report.write(
      explanation or example.make(),
      tmp_path,
      {'Overlay, PNG': 'overlay.png', 'Overlay, stage1, MP4': 'overlay.mp4'},
    )
    contexts.append(context := browser.new_context(**options))
    context.set_default_timeout(10_000)
    page = context.new_page()
    page.on('request', requested)
    page.on('dialog', asked)
    page.on('console', lambda message: faults.append(message.text))
    page.on('pageerror', lambda error: faults.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_selector('html[data-ready]')
    return page

  yield open_
  for context in contexts:
    context.close()
  assert not faults


def _picture(page) -> np.ndarray:
  """Returns what the player shows, uint8 (h, w, 3)."""
  url = page.evaluate("document.getElementById('canvas').toDataURL()")
  content = np.frombuffer(base64.b64decode(url.split(',')[1]), np.uint8)
  return cv2.imdecode(content, cv2.IMREAD_COLOR)[..., ::-1]


def _frame(page) -> int:
  return int(page.input_value('#time'))


def _wait_for(page, frame):
  """Waits until a frame is shown; the policy lets no test wait in the page."""
  for _ in range(500):
    if _frame(page) == frame:
      return
    page.wait_for_timeout(20)
  pytest.fail(f'frame {frame} was never shown')


def _choose(page, method):
  page.get_by_label(method, exact=True).check()


def _center(spots: np.ndarray) -> np.ndarray:
  """Returns the mean x and y of a picture's mass, in shares of its sides."""
  h, w = spots.shape
  y, x = np.mgrid[:h, :w] + 0.5
  return np.array([(x * spots).sum() / w, (y * spots).sum() / h]) / spots.sum()


def _magnified(frame):
  return cv2.resize(frame, (480, 480), interpolation=cv2.INTER_CUBIC)


def test_the_overlay_is_the_one_of_the_files(open_report):
  explanation = example.make()
  page = open_report(explanation)
  page.locator('#time').fill('1')
  assert page.inner_text('#clock') == '1.10 s'
  text = page.get_attribute('#time', 'aria-valuetext')
  assert text == '1.10 s, frame 2 of 8'
  page.locator('#strength').fill('50')
  page.select_option('#layer', label='stage2')
  tube = explanation.tubes[1]
  want = _magnified(overlay.blend(explanation.clip, tube.saliency, 0.5)[1])
  got = _picture(page)
  assert got.shape == want.shape == (480, 480, 3)
  plain = _magnified(explanation.clip[1])
  error = np.abs(got.astype(int) - want).mean()
  # Browsers and OpenCV magnify by different cubics, and bytes are coarse.
  assert error < 0.25 * np.abs(plain.astype(int) - want).mean()
  _choose(page, 'Plain video')
  assert np.abs(_picture(page).astype(int) - plain).mean() < 1
  assert 'plain clip' in page.inner_text('#caption')
  assert page.is_disabled('#layer')


def test_play_and_pause(open_report):
  # It plays by itself where motion is welcome.
  _wait_for(open_report(reduced_motion='no-preference'), 2)
  page = open_report()
  assert page.inner_text('#play') == 'Play'
  page.locator('#time').fill('2')
  before = _picture(page)
  page.click('#play')
  _wait_for(page, 3)
  assert page.inner_text('#play') == 'Pause'
  assert not np.array_equal(_picture(page), before)
  # After the last frame comes the first.
  _wait_for(page, 7)
  _wait_for(page, 0)
  page.click('#play')
  stopped = _frame(page)
  page.wait_for_timeout(300)
  assert _frame(page) == stopped


def test_it_opens_on_the_brightest_moment(open_report):
  explanation = example.make()
  page = open_report(explanation)
  # The method that comes first is shown in its last layer.
  sums = explanation.tubes[2].saliency.sum((1, 2))
  assert 0 < np.argmax(sums) < 7
  assert _frame(page) == np.argmax(sums)


def test_methods_and_layers_switch(open_report):
  page = open_report()
  shown = {}
  for method in ('Saliency Tubes', 'Grad-CAM', 'Class Feature Pyramids'):
    _choose(page, method)
    for layer in ('stage1', 'stage2', 'stage3'):
      page.select_option('#layer', label=layer)
      caption = page.inner_text('#caption')
      assert f'{method}, {layer}, for “wave”' in caption
      shown[method, layer] = _picture(page).tobytes()
  assert len(set(shown.values())) == 9
  # Another method keeps the layer.
  page.select_option('#layer', label='stage2')
  _choose(page, 'Grad-CAM')
  assert 'stage2, for “wave”: speaks early.' in page.inner_text('#caption')


def test_the_verdict_belongs_to_what_is_shown(open_report):
  page = open_report()
  assert page.inner_text('#verdict').startswith('Believe it')
  assert page.locator('#charts svg').count() == 2
  _choose(page, 'Grad-CAM')
  assert page.inner_text('#verdict').startswith('No better than chance')
  _choose(page, 'Plain video')
  assert not page.is_visible('#curves') and not page.is_visible('#charts svg')


@pytest.mark.parametrize('strength', [0, 60, 100])
def test_the_legend_shows_colors_at_their_opacity(open_report, strength):
  page = open_report()
  page.locator('#strength').fill(str(strength))
  content = np.frombuffer(page.locator('#scale').screenshot(), np.uint8)
  scale = cv2.imdecode(content, cv2.IMREAD_COLOR)[..., ::-1]
  row = scale[len(scale) // 2].astype(int)
  gray = np.full((1, 1, len(row), 3), 128, np.uint8)
  saliency = np.linspace(0, 1, len(row), dtype=np.float32)[None, None]
  want = overlay.blend(gray, saliency, strength / 100)[0, 0]
  assert np.abs(row - want)[4:-4].max() < 12  # stops, and rounded corners


def test_nodes_show_their_tubes(open_report):
  explanation = example.make()
  page = open_report(explanation)
  page.locator('#time').fill('0')
  start = _picture(page)
  node = page.get_by_role('button', name='Channel 35 of stage2')
  node.click()
  got = _picture(page)
  assert not np.array_equal(got, start)
  assert 'Channel 35 of stage2' in page.inner_text('#caption')
  assert node.get_attribute('aria-pressed') == 'true'
  plain = _magnified(explanation.clip[0])
  change = np.abs(got.astype(int) - plain).sum(axis=2)
  tube = explanation.node_tubes['stage2', 35]
  # The square of the saliency: its color times its opacity, roughly.
  off = _center(change) - _center(tube[0].astype(float) ** 2)
  assert np.abs(off).max() < 0.08
  page.get_by_role('button', name='Back to Saliency Tubes').click()
  np.testing.assert_array_equal(_picture(page), start)
  assert not page.is_visible('#back')


def test_headings_show_their_level_s_tube(open_report):
  page = open_report()
  heading = page.get_by_role('button', name='stage1', exact=True)
  heading.click()
  caption = page.inner_text('#caption')
  assert caption == 'Class Feature Pyramids, stage1, for “wave”.'
  assert page.get_by_label('Class Feature Pyramids', exact=True).is_checked()
  assert heading.get_attribute('aria-pressed') == 'true'


@pytest.mark.parametrize('num_levels', [4, 8])
def test_the_graph_fits_a_desktop(open_report, num_levels):
  explanation = example.make()
  names = [f'stage_{i}_block_1/separated' for i in range(num_levels)]
  level = explanation.pyramid.levels[0]
  levels = tuple(dataclasses.replace(level, layer=name) for name in names)
  pyramid = dataclasses.replace(explanation.pyramid, levels=levels)
  page = open_report(
    dataclasses.replace(explanation, pyramid=pyramid),
    viewport={'width': 1200, 'height': 900},
  )
  scroller = page.locator('#scroller')
  assert scroller.evaluate('e => e.scrollWidth - e.clientWidth') == 0
  assert not page.is_visible('#sideways')
  # Columns stand below their headings; nodes are neither large nor small.
  node = page.locator('.node circle').first.bounding_box()
  name = page.locator('#levels strong').first.bounding_box()
  center = node['x'] + node['width'] / 2
  assert center == pytest.approx(name['x'] + name['width'] / 2, abs=2)
  assert node['width'] == pytest.approx(20, abs=2)
  # A graph that is narrow enough stands beside the clip.
  beside = scroller.bounding_box()['x'] > 400
  assert beside == (num_levels == 4)


def test_lines_pass_between_the_nodes_that_they_skip(open_report):
  page = open_report()
  lifts = page.locator('.line.residual').evaluate_all(
    """lines => lines.map((line) => line.getPointAtLength(0).y -
      line.getPointAtLength(line.getTotalLength() / 2).y)"""
  )
  assert len(lifts) == 3
  np.testing.assert_allclose(lifts, 13, atol=0.5)  # half a row


def test_keys(open_report):
  page = open_report()
  page.locator('#time').fill('0')
  page.locator('#time').blur()
  ways = (1, 'Right'), (2, 'Right'), (1, 'Left'), (0, 'Left'), (7, 'Left')
  for frame, way in ways:
    page.keyboard.press(f'Arrow{way}')
    assert _frame(page) == frame
  for words in ('Pause', 'Play'):
    page.keyboard.press('Space')
    assert page.inner_text('#play') == words
  page.focus('#play')
  page.keyboard.press('Space')  # once, not once more for the page
  assert page.inner_text('#play') == 'Pause'


def test_everything_is_reached_by_the_tab_key(open_report):
  page = open_report()
  script = """() => {
    const e = document.activeElement;
    const style = getComputedStyle(e.matches('[type=radio]')
      ? e.parentElement : e.querySelector('.halo') ?? e);
    const ring = style.outlineStyle !== 'none' || style.stroke !== 'none';
    const name = e.id || e.name || e.getAttribute('role');
    return [name || e.textContent, ring];
  }"""
  order = []
  for _ in range(12):
    page.keyboard.press('Tab')
    order.append(page.evaluate(script))
  names = [name for name, _ in order]
  controls = ['play', 'time', 'method', 'layer', 'speed', 'strength']
  assert names[:6] == controls
  graph = ['stage1', 'stage2', 'stage3', 'button', 'PNG']
  assert [name for name in names[6:] if name != 'scroller'][:5] == graph
  assert all(ring for name, ring in order if name in [*controls, *graph])
  link = page.get_by_role('link', name='Overlay, stage1, MP4', exact=True)
  assert link.get_attribute('href') == './overlay.mp4'


def test_keys_within_the_graph(open_report):
  page = open_report()
  start = _frame(page)
  page.get_by_role('button', name='Channel 0 of stage1').focus()
  page.keyboard.press('ArrowDown')
  assert 'Channel 7 of stage1' in page.inner_text('#caption')
  page.keyboard.press('ArrowRight')
  assert 'Channel 7 of stage2' in page.inner_text('#caption')
  page.keyboard.press('ArrowUp')
  page.keyboard.press('ArrowLeft')
  assert 'Channel 0 of stage1' in page.inner_text('#caption')
  assert _frame(page) == start
  page.keyboard.press('Escape')
  assert 'Saliency Tubes' in page.inner_text('#caption')
  page.keyboard.press('Enter')
  assert 'Channel 0 of stage1' in page.inner_text('#caption')


def test_a_phone_needs_no_sideways_scrolling(open_report):
  long = 'a_class_whose_name_is_longer_than_any_screen_of_a_phone_is_wide'
  page = open_report(
    dataclasses.replace(example.make(5 * long, num_nodes=20), title=3 * long),
    viewport=_PHONE,
    has_touch=True,
  )
  assert page.evaluate('document.documentElement.scrollWidth') == 360
  assert page.evaluate('visualViewport.scale') == 1
  assert page.locator('h1').bounding_box()['height'] < 370
  assert page.get_attribute('h1', 'title') == 5 * long
  # But that of the graph, which says so and begins at the class.
  assert page.is_visible('#sideways')
  assert page.locator('.class-dot').bounding_box()['x'] < 360
  # The chosen node's picture comes into sight.
  page.get_by_role('button', name='Channel 0 of stage3').tap()
  box = page.locator('#canvas').bounding_box()
  assert 0 <= box['y'] and box['y'] + box['height'] <= 740


def test_both_color_schemes(open_report):
  looks = []
  script = """() => {
    const style = getComputedStyle(document.body);
    return [style.backgroundColor, style.color].map(
      (color) => color.match(/\\d+/g).slice(0, 3).map(Number));
  }"""
  for scheme in ('light', 'dark'):
    looks.append(open_report(color_scheme=scheme).evaluate(script))
  (light_page, light_text), (dark_page, dark_text) = np.mean(looks, axis=2)
  assert light_page > 200 and light_text < 60
  assert dark_page < 60 and dark_text > 200


def test_names_are_text(open_report):
  explanation = example.make(example.HOSTILE)
  page = open_report(dataclasses.replace(explanation, title=example.HOSTILE))
  for place in ('h1', '#title', '#bars', '#caption', '#verdict', '#levels'):
    assert example.HOSTILE in page.inner_text(place)
  assert page.locator('script').count() == 2
  page.wait_for_timeout(100)


def test_the_policy_stops_what_slips_in(browser, tmp_path):
  path = report.write(example.make(), tmp_path)
  slipped = '<script>window.ran = 1</script><img src="http://localhost:9/">'
  path.write_text(path.read_text().replace('</main>', slipped + '</main>'))
  context = browser.new_context()
  page = context.new_page()
  asked = []
  page.on('requestfinished', lambda request: asked.append(request.url))
  page.goto(path.as_uri())
  page.wait_for_selector('html[data-ready]')
  assert page.evaluate('window.ran') is None
  assert not [url for url in asked if url.startswith('http')]
  context.close()


def test_without_pyramid_and_tubes(open_report):
  explanation = dataclasses.replace(
    example.make(), pyramid=None, tubes=(), node_tubes={}
  )
  page = open_report(explanation)
  assert not page.is_visible('#pyramid')
  plain = _magnified(explanation.clip[0])
  assert np.abs(_picture(page).astype(int) - plain).mean() < 1
