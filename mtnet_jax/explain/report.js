
const data = JSON.parse(document.getElementById('data').textContent);
const colors = bytes(data.colors);
const $ = (id) => document.getElementById(id);
const PLAIN = 'plain';
const SHORTEST_SIDE = 480; // canvas pixels: small clips are magnified
const NEUTRAL = '#808080'; // the picture that the color scale lies over

// What is shown: `map` is the saliency or null, `tube` an index or null, `node`
// a node of the graph or null.
const shown = {map: null, tube: null, node: null};
let frame = 0;
let timer = null;

function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

// Saliency is decoded when it is first shown.
function values(map) {
  map.values ??= bytes(map.data);
  return map.values;
}

function make(name, attributes = {}, text = null) {
  const element = document.createElement(name);
  Object.assign(element, attributes);
  if (text !== null) element.textContent = text;
  return element;
}

function draw(parent, name, attributes, text = null) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  if (text !== null) element.textContent = text;
  parent.append(element);
  return element;
}

// ---- The player.

const canvas = $('canvas');
const scale = Math.max(1, Math.ceil(SHORTEST_SIDE / data.height));
canvas.width = data.width * scale;
canvas.height = data.height * scale;
const screen = canvas.getContext('2d');
const veil = make('canvas');
let images = [];

// Both are magnified smoothly: edges of large pixels would hide the figures.
function paint() {
  screen.imageSmoothingQuality = 'high';
  screen.drawImage(images[frame], 0, 0, canvas.width, canvas.height);
  if (!shown.map) return;
  const {width, height} = shown.map;
  veil.width = width;
  veil.height = height;
  const context = veil.getContext('2d');
  const picture = context.createImageData(width, height);
  const saliency = values(shown.map);
  const strength = $('strength').value / 100;
  for (let i = 0; i < width * height; i++) {
    const level = saliency[frame * width * height + i];
    picture.data.set(colors.subarray(3 * level, 3 * level + 3), 4 * i);
    picture.data[4 * i + 3] = strength * level;
  }
  context.putImageData(picture, 0, 0);
  screen.drawImage(veil, 0, 0, canvas.width, canvas.height);
}

function clock(index) {
  return `${data.seconds[index].toFixed(2)} s`;
}

function goTo(index) {
  frame = (index + images.length) % images.length;
  $('time').value = frame;
  const place = `frame ${frame + 1} of ${images.length}`;
  $('time').setAttribute('aria-valuetext', `${clock(frame)}, ${place}`);
  $('clock').textContent = clock(frame);
  for (const [i, bar] of [...$('moments').children].entries()) {
    bar.classList.toggle('now', i === frame);
  }
  paint();
}

function play(on) {
  clearTimeout(timer);
  timer = on ? setTimeout(advance, 1000 / data.rate / $('speed').value) : null;
  $('play').textContent = on ? 'Pause' : 'Play';
  $('play').setAttribute('aria-pressed', on);
}

function advance() {
  goTo(frame + 1);
  play(true);
}

function step(by) {
  play(false);
  goTo(frame + by);
}

// How bright the picture is at each moment.
function brightness() {
  if (!shown.map) return data.seconds.map(() => 0);
  const size = shown.map.width * shown.map.height;
  return data.seconds.map((_, i) => {
    const part = values(shown.map).subarray(i * size, (i + 1) * size);
    return part.reduce((sum, level) => sum + level, 0);
  });
}

function brightestFrame() {
  const sums = brightness();
  return sums.indexOf(Math.max(...sums));
}

function drawMoments() {
  const sums = brightness();
  const most = Math.max(...sums, 1);
  for (const [i, bar] of [...$('moments').children].entries()) {
    bar.style.height = `${(100 * sums[i]) / most}%`;
  }
}

// The colors as they are seen: at their opacity, over a neutral picture.
function drawScale() {
  const stops = [...Array(17).keys()].map((i) => {
    const share = i / 16;
    const level = Math.round(255 * share);
    const opacity = (share * $('strength').value) / 100;
    const color = colors.subarray(3 * level, 3 * level + 3);
    return `rgba(${color.join()},${opacity})`;
  });
  $('scale').style.background =
    `linear-gradient(90deg, ${stops.join()}) ${NEUTRAL}`;
}

// ---- What is shown.

function methodTubes(method) {
  return data.tubes.flatMap((tube, i) => (tube.method === method ? [i] : []));
}

function showTube(index) {
  const tube = index === null ? null : data.tubes[index];
  Object.assign(shown, {map: tube?.map ?? null, tube: index, node: null});
  const method = tube?.method ?? PLAIN;
  for (const input of $('methods').querySelectorAll('input')) {
    input.checked = input.value === method;
  }
  const options = methodTubes(method).map((i) => {
    const {layer, className} = data.tubes[i];
    const isOther = className !== data.className;
    const name = isOther ? `${layer} (“${className}”)` : layer;
    return make('option', {value: i, selected: i === index}, name);
  });
  $('layer').replaceChildren(...options);
  $('layer').disabled = !tube;
  refresh();
}

function showMethod(method) {
  const indices = methodTubes(method);
  const layer = data.tubes[shown.tube]?.layer;
  const same = indices.find((i) => data.tubes[i].layer === layer);
  showTube(same ?? indices.at(-1) ?? null);
}

function showNode(node) {
  Object.assign(shown, {map: node.map, node});
  refresh();
}

function caption() {
  if (shown.node) {
    const {channel, layer, importance} = shown.node;
    return (
      `Channel ${channel} of ${layer}, importance ${importance.toFixed(2)}: ` +
      `where it is active, on the way to “${data.className}”.`
    );
  }
  if (shown.tube === null) return 'The plain clip, as the network sees it.';
  const {method, layer, className, note} = data.tubes[shown.tube];
  const words = `${data.methods[method]}, ${layer}, for “${className}”`;
  return note ? `${words}: ${note}.` : `${words}.`;
}

function refresh() {
  $('caption').textContent = caption();
  canvas.setAttribute('aria-label', $('caption').textContent);
  const method = data.tubes[shown.tube]?.method;
  $('back').hidden = !shown.node;
  $('back').textContent = `Back to ${data.methods[method] ?? 'the plain clip'}`;
  drawMoments();
  drawTrust();
  markGraph();
  paint();
}

// ---- Whether to believe it.

function drawTrust() {
  const tested = shown.node ? null : data.tubes[shown.tube]?.faithfulness;
  $('verdict').className = tested?.kind ?? '';
  $('charts').replaceChildren();
  $('curves').hidden = !tested;
  if (!tested) {
    $('verdict').textContent = shown.map
      ? 'This picture was not tested.'
      : 'Choose a method to see how well its picture was tested.';
    return;
  }
  $('verdict').textContent = tested.sentence;
  $('curves-of').textContent =
    `Probability of “${data.tubes[shown.tube].className}” as more of the ` +
    'clip is removed or shown:';
  drawChart(tested, 'deletion', 'Removed: lower is better');
  drawChart(tested, 'insertion', 'Shown: higher is better');
}

function drawChart(tested, name, heading) {
  const chart = draw($('charts'), 'svg', {viewBox: '0 0 280 150', role: 'img'});
  const [left, top, right, bottom] = [40, 26, 274, 130];
  const x = (share) => left + share * (right - left);
  const y = (probability) => bottom - probability * (bottom - top);
  const change = name === 'deletion' ? 'removed' : 'shown';
  chart.setAttribute(
    'aria-label',
    `${heading}. Probability over the share of the clip that is ${change}.`,
  );
  draw(chart, 'text', {x: 0, y: 12, class: 'heading'}, heading);
  for (const share of [0, 0.5, 1]) {
    const line = `M${left} ${y(share)}H${right}`;
    draw(chart, 'path', {d: line, class: 'axis'});
    const label = {x: left - 5, y: y(share) + 4, 'text-anchor': 'end'};
    draw(chart, 'text', label, `${100 * share} %`);
    const anchor = share === 1 ? 'end' : share ? 'middle' : 'start';
    const below = {x: x(share), y: bottom + 16, 'text-anchor': anchor};
    const words = share === 1 ? `100 % ${change}` : `${100 * share} %`;
    draw(chart, 'text', below, words);
  }
  const points = (curve) =>
    curve.map((p, i) => `${x(tested.shares[i])},${y(p)}`).join(' ');
  const random = points(tested[`random_${name}`]);
  draw(chart, 'polyline', {points: random, class: 'random'});
  draw(chart, 'polyline', {points: points(tested[name]), class: 'curve'});
}

// ---- The page.

function drawBars() {
  for (const bar of data.bars) {
    const item = make('li');
    item.classList.toggle('explained', bar.isExplained);
    const track = make('div');
    const filled = make('i');
    filled.style.width = `${100 * bar.probability}%`;
    track.append(filled);
    const name = bar.rank > 5 ? `${bar.name} (rank ${bar.rank})` : bar.name;
    const label = make('span', {title: bar.wholeName}, name);
    item.append(label, track, make('b', {}, bar.percent));
    $('bars').append(item);
  }
}

function drawMethods() {
  const used = Object.keys(data.methods).filter((m) => methodTubes(m).length);
  for (const value of [...used, PLAIN]) {
    const input = make('input', {type: 'radio', name: 'method', value});
    input.addEventListener('change', () => showMethod(value));
    const label = make('label');
    label.append(input, data.methods[value] ?? 'Plain video');
    $('methods').append(label);
  }
}

// A row a method; what there is of each layer stands behind its kind.
function drawFiles() {
  for (const {name, links} of data.files) {
    const row = make('dd');
    let kind = null;
    for (const link of links) {
      if (link.layer && link.kind !== kind) {
        row.append(make('span', {}, `${link.kind}:`));
      }
      kind = link.kind;
      const anchor = make('a', {href: link.href}, link.layer || kind);
      anchor.setAttribute('aria-label', link.words);
      row.append(anchor);
    }
    $('links').append(make('dt', {}, name), row);
  }
  $('files').hidden = !data.files.length;
}

function fill() {
  const explained = data.bars.find((bar) => bar.isExplained);
  $('headline').title = explained.wholeName; // the line may hold a part of it
  document.title = `${data.className}: ${data.title}`;
  // Of a clip that wraps round at the video's end, the last frame is no later.
  const first = Math.min(...data.seconds).toFixed(2);
  const last = Math.max(...data.seconds).toFixed(2);
  $('title').textContent =
    `${data.title}: ${data.seconds.length} frames of ` +
    `${data.width} × ${data.height} pixels, ${first} s to ${last} s`;
  $('headline').textContent =
    explained.rank === 1
      ? `Why “${data.className}”? The network gives it ${explained.percent}.`
      : `What speaks for “${data.className}” (${explained.percent})? ` +
        `The network answers “${data.bars[0].name}” (${data.bars[0].percent}).`;
  $('moments').append(...data.seconds.map(() => make('i')));
  $('time').max = data.seconds.length - 1;
  drawScale();
  drawBars();
  drawMethods();
  drawFiles();
  if (data.graph) drawGraph();
}

function listen() {
  $('play').addEventListener('click', () => play(timer === null));
  $('time').addEventListener('input', (event) => {
    play(false);
    goTo(Number(event.target.value));
  });
  $('strength').addEventListener('input', () => {
    drawScale();
    paint();
  });
  $('layer').addEventListener('change', (event) => {
    showTube(Number(event.target.value));
  });
  $('back').addEventListener('click', leaveNode);
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === 'Escape' && shown.node) leaveNode();
    // Elements that use a key themselves keep it.
    const target = event.target;
    if (event.key === ' ' && !target.closest('button, select, a')) {
      event.preventDefault();
      play(timer === null);
    }
    const by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (by && !target.closest('input, select, .scroller')) step(by);
  });
}

function leaveNode() {
  showTube(shown.tube);
  if (document.activeElement === document.body) $('play').focus();
}

images = await Promise.all(
  data.frames.map(async (source) => {
    const image = make('img', {src: source});
    await image.decode();
    return image;
  }),
);
fill();
listen();
if (data.opensOn === null) showMethod(data.tubes[0]?.method ?? PLAIN);
else showTube(data.opensOn);
goTo(brightestFrame());
play(!matchMedia('(prefers-reduced-motion: reduce)').matches);
document.documentElement.dataset.ready = 'yes';
