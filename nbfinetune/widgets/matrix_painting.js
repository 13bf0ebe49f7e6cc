// Painting of a confusion matrix: its colours, its measures and its cells.
const AXIS = 20; // px of the title of an axis
const EDGE = 2; // px around the cells, for their frames
const LARGE_FONT = 12; // px of names and numbers
const SMALL_FONT = 9; // px below which they cannot be read
const LONGEST = 80; // characters of a name that are looked at
const NARROWED = 0.75; // of its width to which a number may be pressed
const LEAST = 0.14; // no cell that counts is as the paper
const DARK = 0.179; // luminance where black and white are read equally well, 4.6:1

// The theme's colours as [red, green, blue], whatever way they are written.
function themeColours(node) {
  const style = getComputedStyle(node);
  const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const value = (name, otherwise) => {
    pen.fillStyle = otherwise;
    pen.fillStyle = style.getPropertyValue(name).trim();
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const paper = value("--nbft-paper", "white"); // below what is half transparent
  const of = (name, otherwise) => { value("--nbft-paper", "white"); return value(name, otherwise); };
  const [ink, soft] = [of("--nbft-ink", "#212121"), of("--nbft-soft", "#555")];
  const [rule, focus] = [of("--nbft-rule", "#bdbdbd"), of("--nbft-focus", "#0072b2")];
  const shades = [of("--nbft-1", "#c04f00"), of("--nbft-0", "#0072b2")].map((c) => shadesOf(paper, c));
  return { paper, ink, soft, rule, focus, wrong: shades[0], right: shades[1], family: style.fontFamily };
}

const css = (rgb, alpha = 1) => `rgb(${rgb.join(" ")} / ${alpha})`;

// 256 steps from the paper to a colour: as pixels, and what is written on them.
function shadesOf(paper, colour) {
  const [pixels, inks] = [new Uint32Array(256), []];
  for (let s = 0; s < 256; s++) {
    const share = LEAST + ((1 - LEAST) * s) / 255;
    const rgb = paper.map((p, k) => Math.round(p + (colour[k] - p) * share));
    pixels[s] = (255 << 24) | (rgb[2] << 16) | (rgb[1] << 8) | rgb[0];
    inks.push(luminance(rgb) > DARK ? "black" : "white");
  }
  return { pixels, inks };
}

function luminance(rgb) {
  const [r, g, b] = rgb.map((c) => (c <= 10 ? c / 3294 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

// How the matrix lies in a square of `side` px: names as large as fit, slanted where cells are small.
function matrixLayout(names, side, largest, pen, family) {
  const n = Math.max(names.length, 1);
  pen.font = `${LARGE_FONT}px ${family}`;
  const longest = Math.max(0, ...names.map((name) => pen.measureText(name.slice(0, LONGEST)).width));
  const most = Math.min(170, 0.22 * side);
  const tried = (font, turn) => {
    const label = Math.min((longest * font) / LARGE_FONT + 2, most);
    const left = AXIS + label + 6;
    const high = [font, Math.SQRT1_2 * (label + font), label][turn / 45];
    const bottom = AXIS + high + 8;
    const room = side - 2 * EDGE;
    const cell = Math.max(0, Math.min((room - left) / n, (room - bottom) / n, largest));
    return { names, n, font, turn, label, left, top: EDGE, bottom, cell, labelled: true };
  };
  let found = tried(LARGE_FONT, 0);
  if (longest + 10 > found.cell) {
    const fonts = [12, 11, 10, 9].map((font) => [45, 90].map((turn) => tried(font, turn))).flat();
    found = fonts.find(({ cell, font, turn }) => cell >= (turn === 45 ? 1.35 * font : font + 1));
  }
  if (!found) {
    const cell = Math.min((side - AXIS - 4 - 2 * EDGE) / n, largest);
    found = { names, n, font: SMALL_FONT, turn: 0, label: 0, left: AXIS + 4, top: EDGE, bottom: AXIS + 4, cell };
  }
  const extent = found.cell * n;
  const [width, height] = [found.left + extent + EDGE, found.top + extent + found.bottom];
  return { ...found, extent, width: Math.ceil(width), height: Math.ceil(height), edge: (i) => Math.round(i * found.cell) };
}

// All cells as one picture of a pixel each: a million cost no more than its copy. Where cells are
// smaller than a pixel of the screen, the darkest of each is shown.
function cellsPicture(view, colours, ratio, lay) {
  const { n, numbers, shades, others } = view;
  const side = Math.max(1, lay.cell * ratio >= 1 ? n : Math.floor(lay.extent * ratio));
  const picture = new OffscreenCanvas(side, side);
  const image = new ImageData(side, side);
  const [pixels, shown] = [new Uint32Array(image.data.buffer), new Uint8Array(side * side)];
  for (let k = 0; k < numbers.length; k++) {
    const [i, j] = [Math.floor(numbers[k] / n), numbers[k] % n];
    const at = side === n ? numbers[k] : Math.floor((i * side) / n) * side + Math.floor((j * side) / n);
    const shade = Math.round(255 * shades[k]);
    if (pixels[at] && shown[at] >= shade) continue;
    shown[at] = shade;
    pixels[at] = (isRight(view, i, j) ? colours.right : colours.wrong).pixels[shade];
  }
  picture.getContext("2d").putImageData(image, 0, 0);
  return picture;
}

// The last cell of the diagonal mixes right and wrong: among others any is confused with any.
const isRight = (view, i, j) => i === j && !(view.others && i === view.n - 1);

function paintMatrix(pen, view, lay, colours, ratio) {
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.fillStyle = css(colours.paper);
  pen.fillRect(0, 0, lay.width, lay.height);
  pen.textBaseline = "middle";
  if (view.n) {
    pen.imageSmoothingEnabled = false;
    pen.drawImage(cellsPicture(view, colours, ratio, lay), lay.left, lay.top, lay.extent, lay.extent);
    paintLines(pen, lay, colours);
    lay.digits = paintNumbers(pen, view, lay, colours);
    if (lay.labelled) paintNames(pen, lay, colours);
  }
  pen.textAlign = "center";
  pen.font = `${LARGE_FONT}px ${colours.family}`;
  pen.fillStyle = css(colours.soft);
  pen.fillText("predicted", lay.left + lay.extent / 2, lay.height - AXIS / 2);
  pen.save();
  pen.translate(AXIS / 2, lay.top + lay.extent / 2);
  pen.rotate(-Math.PI / 2);
  pen.fillText("actual", 0, 0);
  pen.restore();
}

function paintLines(pen, lay, colours) {
  const { left, top, n, extent, edge } = lay;
  pen.lineWidth = 1;
  pen.strokeStyle = css(colours.rule);
  pen.strokeRect(left - 0.5, top - 0.5, Math.round(extent) + 1, Math.round(extent) + 1);
  if (lay.cell < 8) return;
  pen.strokeStyle = css(colours.rule, 0.4);
  pen.beginPath();
  for (let i = 1; i < n; i++) {
    pen.moveTo(left + edge(i) - 0.5, top);
    pen.lineTo(left + edge(i) - 0.5, top + extent);
    pen.moveTo(left, top + edge(i) - 0.5);
    pen.lineTo(left + extent, top + edge(i) - 0.5);
  }
  pen.stroke();
}

// Gives the px of the numbers' font, 0 where cells have no room for them.
function paintNumbers(pen, view, lay, colours) {
  const room = lay.cell - 2;
  if (room < SMALL_FONT + 1) return 0;
  const text = (k) => (view.normalize === "none" ? String(view.counts[k]) : view.shares[k].toFixed(2).replace(/^0/, ""));
  pen.font = `${LARGE_FONT}px ${colours.family}`;
  let longest = 1;
  for (let k = 0; k < view.numbers.length; k++) {
    // Others among others are by far the most, and would make all numbers small.
    if (!view.others || view.numbers[k] < view.n ** 2 - 1) longest = Math.max(longest, pen.measureText(text(k)).width);
  }
  const fits = (LARGE_FONT * room) / (longest * NARROWED);
  const font = Math.max(SMALL_FONT, Math.min(13, room - 2, fits));
  pen.font = `${font}px ${colours.family}`;
  pen.textAlign = "center";
  for (let k = 0; k < view.numbers.length; k++) {
    if (pen.measureText(text(k)).width * NARROWED > room) continue;
    const [i, j] = [Math.floor(view.numbers[k] / view.n), view.numbers[k] % view.n];
    const kind = isRight(view, i, j) ? colours.right : colours.wrong;
    pen.fillStyle = kind.inks[Math.round(255 * view.shades[k])];
    pen.fillText(text(k), lay.left + (j + 0.5) * lay.cell, lay.top + (i + 0.5) * lay.cell + 0.5, room);
  }
  return font;
}

function paintNames(pen, lay, colours) {
  const { left, top, cell, extent, names, label, turn } = lay;
  pen.font = `${lay.font}px ${colours.family}`;
  pen.fillStyle = css(colours.ink);
  names.forEach((name, i) => {
    const shown = cutTo(pen, name, label);
    pen.textAlign = "right";
    pen.fillText(shown, left - 6, top + (i + 0.5) * cell);
    pen.save();
    placeUnder(pen, lay, i);
    pen.textAlign = turn ? "right" : "center";
    pen.fillText(shown, 0, 0);
    pen.restore();
  });
}

// Moves the pen to where the name of a column ends.
function placeUnder(pen, lay, j) {
  const down = lay.turn === 45 ? lay.font / 2 : lay.turn ? 0 : lay.font / 2;
  pen.translate(lay.left + (j + 0.5) * lay.cell + (lay.turn === 45 ? 3 : 0), lay.top + lay.extent + 6 + down);
  pen.rotate((-lay.turn * Math.PI) / 180);
}

function cutTo(pen, name, px) {
  let text = name.slice(0, LONGEST);
  if (text === name && pen.measureText(text).width <= px) return text;
  while (text && pen.measureText(`${text}\u2026`).width > px) text = text.slice(0, -1);
  return `${text}\u2026`;
}

// A frame that is seen on any cell.
function frame(pen, lay, [i, j], colours, colour) {
  const [x, y] = [lay.left + lay.edge(j), lay.top + lay.edge(i)];
  const [width, height] = [lay.edge(j + 1) - lay.edge(j), lay.edge(i + 1) - lay.edge(i)];
  const grown = Math.max(0, (7 - width) / 2);
  for (const [style, line] of [[colours.paper, 4], [colour, 2]]) {
    pen.strokeStyle = css(style);
    pen.lineWidth = line;
    pen.strokeRect(x - grown, y - grown, width + 2 * grown - 1, height + 2 * grown - 1);
  }
}

// The row and the column of a cell, with their names.
function band(pen, lay, [i, j], colours) {
  const { left, top, extent, edge, turn, labelled, names } = lay;
  const [x, y] = [left + edge(j), top + edge(i)];
  const [width, height] = [edge(j + 1) - edge(j), edge(i + 1) - edge(i)];
  pen.fillStyle = css(colours.focus, 0.2);
  if (labelled) {
    pen.fillRect(AXIS, y, left - AXIS, height);
    pen.save();
    placeUnder(pen, lay, j);
    pen.font = `${lay.font}px ${colours.family}`;
    const long = pen.measureText(cutTo(pen, names[j], lay.label)).width + 8;
    if (turn) pen.fillRect(4 - long, -lay.font / 2 - 2, long, lay.font + 4);
    else pen.fillRect(-width / 2, -lay.font / 2 - 4, width, lay.font + 8);
    pen.restore();
  }
  pen.strokeStyle = css(colours.ink, 0.75);
  pen.lineWidth = 1;
  if (lay.cell < 3) { // lines apart from the cell could not be told from one another
    pen.strokeRect(left, y + height / 2, extent, 0);
    pen.strokeRect(x + width / 2, top, 0, extent);
    return;
  }
  pen.strokeRect(left - 0.5, y - 0.5, extent + 1, height);
  pen.strokeRect(x - 0.5, top - 0.5, width, extent + 1);
}

