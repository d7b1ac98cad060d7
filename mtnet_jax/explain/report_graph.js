
// The graph of the pyramid: a part of report.js, which follows it.

const NARROWEST = 84; // pixels of a column in which its numbers can be read
const WIDEST = 150;
const ROW = 26;
const nodes = []; // those whose tube can be shown, with their elements

function drawGraph() {
  const {columns, lines, numRows, middle, mode, threshold} = data.graph;
  $('pyramid').hidden = false;
  const how = mode === 'feature' ? 'channel by channel' : 'layer by layer';
  $('pyramid-text').textContent =
    `The channels that matter most for “${data.className}”, traced back ` +
    `from the class ${how} (θ = ${threshold}). Larger is more important; ` +
    'dashed lines are residual connections. Choose a filled node, or the ' +
    'name of a layer, to see its picture in the player.';
  const column = columnWidth(columns.length + 1);
  const width = column * (columns.length + 1);
  $('graph').style.width = `${width}px`;
  const box = `0 0 ${width} ${ROW * (numRows + 1)}`;
  const svg = draw($('graph'), 'svg', {viewBox: box, id: 'drawing'});
  svg.setAttribute('role', 'group');
  svg.setAttribute('aria-label', 'Channels and how they depend on each other');
  const x = (level) => column * (columns.length - level - 0.5);
  const y = (row) => ROW * (row + 1);
  for (const line of lines) drawLine(svg, line, x, y);
  for (const level of [...columns.keys()].reverse()) {
    drawColumn(svg, columns[level], level, x(level), y);
  }
  draw(svg, 'circle', {cx: x(-1), cy: y(middle), r: 10, class: 'class-dot'});
  drawHeading(null, data.className, 'class');
  $('scroller').scrollLeft = $('scroller').scrollWidth;
  svg.addEventListener('keydown', moveInGraph);
  new ResizeObserver(([{target}]) => {
    $('sideways').hidden = target.scrollWidth <= target.clientWidth;
  }).observe($('scroller'));
}

// The graph stands beside the clip where it can, else across the page.
function columnWidth(number) {
  const room = () => $('scroller').clientWidth / number;
  if (room() < NARROWEST) $('pyramid').classList.add('wide');
  return Math.min(Math.max(Math.floor(room()), NARROWEST), WIDEST);
}

function drawLine(svg, line, x, y) {
  const isSet = line.level >= 0 && line.source === -1;
  const start = x(line.level) - (isSet ? 22 : 0);
  const end = x(line.level + line.span);
  const bend = (start + end) / 2;
  // Past the nodes between: it is off by 3/4 of this, half a row a column.
  const bow = (2 / 3) * ROW * (line.span - 1);
  const [from, to] = [y(line.start), y(line.end)];
  const path = draw(svg, 'path', {
    d: `M${start} ${from}C${bend} ${from - bow} ${bend} ${to - bow} ${end} ${to}`,
    class: `line ${line.via}`,
    'stroke-width': 0.6 + 1.8 * line.importance,
    'stroke-opacity': 0.12 + 0.6 * line.importance ** 2,
  });
  line.path = path;
}

function drawColumn(svg, column, level, x, y) {
  const counts = `${column.numKept} of ${column.numChannels} channels`;
  drawHeading(column.tube, column.layer, counts);
  const rows = column.nodes.map((node) => node.row);
  if (column.moreRow !== null) rows.push(column.moreRow);
  if (column.isSource && rows.length) {
    const [first, last] = [y(rows[0]) - 10, y(rows.at(-1)) + 10];
    draw(svg, 'path', {d: `M${x - 22} ${first}V${last}`, class: 'bracket'});
  }
  for (const node of column.nodes) {
    Object.assign(node, {layer: column.layer, level});
    drawNode(svg, node, x, y(node.row));
  }
  if (column.moreRow !== null) {
    const more = draw(svg, 'g', {class: 'node'});
    const place = {x: x - 10, y: y(column.moreRow) + 4};
    draw(more, 'text', place, `+ ${column.numKept - column.nodes.length} more`);
  }
}

function drawNode(svg, node, x, y) {
  const radius = 4 + 6 * node.importance;
  const group = draw(svg, 'g', {class: 'node'});
  draw(group, 'circle', {cx: x, cy: y, r: radius});
  draw(group, 'text', {x: x + 15, y: y + 4}, node.channel);
  const words =
    `Channel ${node.channel} of ${node.layer}, ` +
    `importance ${node.importance.toFixed(2)}`;
  draw(group, 'title', {}, words);
  if (!node.map) return;
  const opacity = 0.35 + 0.65 * node.importance;
  const fill = {cx: x, cy: y, r: radius, class: 'fill', 'fill-opacity': opacity};
  draw(group, 'circle', fill);
  draw(group, 'circle', {cx: x, cy: y, r: radius + 4, class: 'halo'});
  // A finger is wider than a node.
  const area = {x: x - 13, y: y - ROW / 2, width: 50, height: ROW};
  draw(group, 'rect', {...area, class: 'touch'});
  group.setAttribute('role', 'button');
  group.setAttribute('aria-label', words);
  // One stop of the tab key; arrows do the rest.
  group.setAttribute('tabindex', nodes.length ? -1 : 0);
  node.group = group;
  nodes.push(node);
  group.addEventListener('click', () => choose(node));
  group.addEventListener('focus', () => {
    for (const other of nodes) other.group.setAttribute('tabindex', -1);
    group.setAttribute('tabindex', 0);
    if (group.matches(':focus-visible')) showNode(node);
  });
}

function choose(node) {
  showNode(node);
  reveal();
}

// On a small screen the player may be out of sight.
function reveal() {
  canvas.scrollIntoView({block: 'nearest'});
}

function drawHeading(tube, name, text) {
  const heading = make('div');
  if (tube === null) {
    heading.append(breakable(make('strong'), name));
  } else {
    const button = breakable(make('button', {type: 'button'}), name);
    button.dataset.tube = tube;
    button.addEventListener('click', () => {
      showTube(tube);
      reveal();
    });
    heading.append(button);
  }
  heading.append(make('small', {}, text));
  $('levels').append(heading);
}

// Names break after their parts, as in stage_4_|block_1/|expand.
function breakable(element, name) {
  for (const part of name.split(/(?<=_\d+_|\/)/)) {
    element.append(part, make('wbr'));
  }
  return element;
}

function markGraph() {
  for (const node of nodes) {
    node.group.setAttribute('aria-pressed', node === shown.node);
  }
  for (const button of $('levels').querySelectorAll('button')) {
    const isShown = !shown.node && Number(button.dataset.tube) === shown.tube;
    button.setAttribute('aria-pressed', isShown && shown.tube !== null);
  }
  if (!data.graph) return;
  $('drawing').classList.toggle('dimmed', shown.node !== null);
  for (const line of data.graph.lines) {
    const {level, channel} = shown.node ?? {};
    const starts = line.level === level && line.source === channel;
    const ends = line.level + line.span === level && line.target === channel;
    line.path.classList.toggle('lit', starts || ends);
  }
}

// Up and down within a level; left and right to the nearest node of the next.
function moveInGraph(event) {
  const node = nodes.find((one) => one.group === event.target);
  if (!node) return;
  const [level, row] = {
    ArrowUp: [0, -1],
    ArrowDown: [0, 1],
    ArrowLeft: [1, 0],
    ArrowRight: [-1, 0],
  }[event.key] ?? [null, null];
  const isChoice = event.key === 'Enter' || event.key === ' ';
  if (level === null && !isChoice) return;
  event.preventDefault();
  event.stopPropagation();
  if (isChoice) return choose(node);
  const distance = (one) => Math.abs(one.row - node.row);
  const next = nodes
    .filter((one) => one.level === node.level + level)
    .filter((one) => !row || Math.sign(one.row - node.row) === row)
    .sort((one, other) => distance(one) - distance(other))[0];
  next?.group.focus();
}
