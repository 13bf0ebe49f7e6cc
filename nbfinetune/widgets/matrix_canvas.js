// A confusion matrix on a canvas: any number of classes, every cell for the mouse and the keyboard.
const NEAR = 4; // px: a click beside a tiny cell that is not empty means that cell
const AROUND = 170; // px of the window's height for JupyterLab's bars and a line above the matrix
const SMALLEST = 320; // px of the side, however low the window is
const READABLE = 13; // px of cells with numbers: so small they get to make room for the pictures
const COARSE = 560; // px of the side where cells hold no numbers
const STEPS = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
const THEME = ["class", "data-jp-theme-light", "data-jp-theme-name"]; // of the body
const HINT = "Click a cell, or move with the arrow keys and press Enter: its pictures open here";

function render({ model, el }) {
  const box = add(el, "div", "nbft-matrix-box nbft-choice");
  const canvas = add(box, "canvas", "nbft-matrix");
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-roledescription", "confusion matrix");
  canvas.setAttribute("data-lm-suppress-shortcuts", "true");
  const marks = add(box, "canvas", "nbft-matrix-marks");
  marks.setAttribute("aria-hidden", "true");
  const line = add(box, "div", "nbft-matrix-line nbft-spoken");
  line.setAttribute("role", "status");
  const place = panelPlace(el, HINT);
  const tip = tooltip(el);
  const [pen, over] = [canvas.getContext("2d"), marks.getContext("2d")];

  let view; // what the model holds, decoded
  let lay; // where it lies, once there is room
  let colours;
  let at = [0, 0]; // the cell that the keyboard is at
  let chosen; // the cell whose pictures are open
  let hover = null; // the cell under the pointer
  let ratio = 1;

  const read = (name, Kind) => {
    const bytes = model.get(name);
    return new Kind(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
  };
  const decode = () => {
    const names = model.get("names");
    view = {
      names, n: names.length, numbers: read("numbers", Uint32Array), counts: read("counts", Uint32Array),
      shares: read("shares", Float32Array), shades: read("shades", Float32Array),
      others: model.get("others"), normalize: model.get("normalize"), version: model.get("version"),
    };
  };
  // Where cell (i, j) is among those that are not empty, which come in order; else -1.
  const find = (i, j) => {
    const number = i * view.n + j;
    let [low, high] = [0, view.numbers.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (view.numbers[middle] < number) low = middle + 1;
      else high = middle;
    }
    return view.numbers[low] === number ? low : -1;
  };
  const pictures = (k) => (view.counts[k] === 1 ? "1 picture" : `${view.counts[k].toLocaleString("en")} pictures`);
  const share = (k) => `${(100 * view.shares[k]).toFixed(1)} % ${model.get("of")}`;
  const least = () => model.get("least");
  const count = (i, j) => {
    const k = find(i, j);
    if (k >= 0) return `${pictures(k)}, ${share(k)}`;
    return least() > 1 ? `fewer than ${least()} pictures, left out` : "no picture";
  };
  const pair = (i, j) => `actual ${view.names[i]}, predicted ${view.names[j]}`;
  const words = (i, j) => {
    const k = find(i, j);
    return `${pair(i, j)}: ${k < 0 ? count(i, j) : `${view.counts[k]} (${share(k)})`}`;
  };

  // The window's height and the output's width limit the side; figsize only the latter.
  const side = (width) => {
    const size = model.get("size");
    const n = Math.max(view.n, 1);
    const largest = size ? Infinity : Math.max(48, Math.min(110, 400 / n));
    const most = Math.max(SMALLEST, window.innerHeight - AROUND);
    const fit = (px) => matrixLayout(view.names, px, largest, pen, colours.family);
    const whole = fit(Math.min(width, size || most));
    for (const panel of BESIDE) {
      const rest = width - panel - GAP;
      if (whole.width <= rest) return [whole, true];
      if (size || rest < SMALLEST) continue;
      const beside = fit(rest);
      const readable = beside.labelled ? beside.cell >= READABLE : !whole.labelled && rest >= COARSE;
      if (readable) return [beside, true];
    }
    return [whole, false];
  };
  const fit = () => {
    const split = place.split();
    if (!split?.clientWidth) return; // not on the page yet, or in a tab behind another
    const [next, beside] = side(split.clientWidth);
    split.toggleAttribute("data-beside", beside);
    const dense = window.devicePixelRatio || 1;
    const same = lay && next.cell === lay.cell && dense === ratio;
    lay = next;
    if (same) return;
    ratio = dense;
    paint();
  };
  const paint = () => {
    for (const each of [canvas, marks]) {
      each.width = lay.width * ratio;
      each.height = lay.height * ratio;
      each.style.width = `${lay.width}px`;
    }
    paintMatrix(pen, view, lay, colours, ratio);
    drawMarks();
    const { cell, left, top, digits } = lay;
    Object.assign(canvas.dataset, { cell, left, top, digits, painted: Number(canvas.dataset.painted ?? 0) + 1 });
  };
  const inside = (cell) => cell && cell.every((v) => v >= 0 && v < view.n);
  const drawMarks = () => {
    if (!lay) return;
    over.setTransform(ratio, 0, 0, ratio, 0, 0);
    over.clearRect(0, 0, lay.width, lay.height);
    const focused = document.activeElement === canvas && view.n ? at : null;
    const pointed = hover ?? focused;
    if (inside(pointed)) band(over, lay, pointed, colours);
    if (inside(chosen)) frame(over, lay, chosen, colours, colours.ink);
    if (inside(focused)) frame(over, lay, focused, colours, colours.focus);
  };

  const cellOf = (event) => {
    if (!lay) return null;
    const bounds = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - bounds.left - lay.left, event.clientY - bounds.top - lay.top];
    const { cell, n } = lay;
    const [i, j] = [Math.floor(y / cell), Math.floor(x / cell)];
    if (!inside([i, j])) return null;
    if (cell >= NEAR || find(i, j) >= 0) return [i, j];
    let best = [i, j];
    let nearest = (NEAR / cell) ** 2;
    const reach = Math.ceil(NEAR / cell);
    for (let a = Math.max(0, i - reach); a <= Math.min(n - 1, i + reach); a++) {
      for (let b = Math.max(0, j - reach); b <= Math.min(n - 1, j + reach); b++) {
        const apart = (a + 0.5 - y / cell) ** 2 + (b + 0.5 - x / cell) ** 2;
        if (apart < nearest && find(a, b) >= 0) [best, nearest] = [[a, b], apart];
      }
    }
    return best;
  };
  const tell = (i, j, x, y) => tip.show({ actual: view.names[i], predicted: view.names[j] }, count(i, j), x, y);
  const open = (i, j) => {
    at = chosen = [i, j];
    drawMarks();
    line.textContent = words(i, j);
    const k = find(i, j);
    const what = k >= 0 ? `${pictures(k)} of ${pair(i, j)}` : pair(i, j);
    // A trait would keep back the same cell again.
    model.send({ event: "cell", cell: [i, j], version: view.version, asked: place.open(what) });
  };
  const leave = () => {
    tip.hide();
    if (hover) { hover = null; drawMarks(); }
  };

  canvas.addEventListener("pointermove", (event) => {
    const cell = cellOf(event);
    if (!cell) return leave();
    if (String(cell) !== String(hover)) { hover = cell; drawMarks(); }
    if (event.pointerType !== "touch") tell(...cell, event.clientX, event.clientY); // a finger hides it
  });
  canvas.addEventListener("pointerleave", leave);
  canvas.addEventListener("click", (event) => {
    const cell = hover ?? cellOf(event); // a click has whole pixels, and a cell may be smaller
    if (cell) open(...cell);
  });
  canvas.addEventListener("keydown", (event) => {
    if (passes(event)) return;
    event.stopPropagation(); // else "m" would turn the cell into text, and "d d" delete it
    const n = view.n;
    if (!n || !lay) return;
    if (event.key in STEPS) {
      const step = event.ctrlKey ? 10 : 1;
      at = at.map((v, k) => Math.min(n - 1, Math.max(0, v + step * STEPS[event.key][k])));
    } else if (event.key === "Home") at = [at[0], 0];
    else if (event.key === "End") at = [at[0], n - 1];
    else if (event.key === "Enter" || event.key === " ") open(...at);
    else return;
    event.preventDefault();
    hover = null;
    line.textContent = words(...at);
    drawMarks();
    const bounds = canvas.getBoundingClientRect();
    const [x, y] = [at[1] + 1, at[0] + 1].map((v) => v * lay.cell);
    tell(...at, bounds.left + lay.left + x, bounds.top + lay.top + y);
  });
  canvas.addEventListener("focus", () => { if (view.n) line.textContent = words(...at); drawMarks(); });
  canvas.addEventListener("blur", () => { tip.hide(); drawMarks(); });

  const all = () => {
    decode();
    chosen = model.get("selected");
    at = chosen.map((v) => Math.min(Math.max(v, 0), Math.max(view.n - 1, 0)));
    canvas.setAttribute("aria-label", `${model.get("title")}. Arrow keys move, Enter opens a cell`);
    leave();
    lay = undefined;
    fit();
  };
  const recolour = () => {
    const next = themeColours(box);
    if (JSON.stringify(next) === JSON.stringify(colours)) return;
    colours = next;
    if (lay) paint();
  };
  let waiting;
  const soon = () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(() => { recolour(); fit(); }); };
  colours = themeColours(document.body);
  // The box has a size once it is on the page: then its surroundings are known too.
  const sizes = new ResizeObserver(() => { if (place.split()) sizes.observe(place.split()); soon(); });
  sizes.observe(box);
  const theme = new MutationObserver(soon);
  theme.observe(document.body, { attributes: true, attributeFilter: THEME });
  window.addEventListener("resize", soon);
  model.on("change:version", all); // one event for all that changes together
  model.on("change:size", fit);
  model.on("change:selected", () => { chosen = model.get("selected"); drawMarks(); });
  model.on("change:answered", () => place.answered(model.get("answered")));
  all();
  return () => {
    sizes.disconnect();
    theme.disconnect();
    window.removeEventListener("resize", soon);
    tip.close();
    place.close();
  };
}

// A box beside the pointer, above all else, that any edge of the window pushes to the other side.
function tooltip(el) {
  const tip = add(el, "div", "nbft-matrix-tip");
  tip.setAttribute("aria-hidden", "true"); // the spoken line says it
  tip.popover = "manual";
  tip.hidden = true;
  const hide = () => {
    if (tip.hidden) return;
    tip.hidePopover?.();
    tip.hidden = true;
  };
  const onKey = (event) => { if (event.key === "Escape") hide(); };
  document.addEventListener("keydown", onKey, true);
  document.addEventListener("scroll", hide, true);
  return {
    hide,
    show(terms, text, x, y) {
      tip.replaceChildren();
      const list = add(tip, "dl", "");
      for (const term in terms) { add(list, "dt", "", term); add(list, "dd", "", terms[term]); }
      add(tip, "p", "", text);
      if (tip.hidden) {
        tip.hidden = false;
        tip.showPopover?.();
      }
      const beyond = (at, length, end) => (at + 14 + length > end - 4 ? Math.max(4, at - 14 - length) : at + 14);
      tip.style.left = `${beyond(x, tip.offsetWidth, window.innerWidth)}px`;
      tip.style.top = `${beyond(y, tip.offsetHeight, window.innerHeight)}px`;
    },
    close() {
      document.removeEventListener("keydown", onKey, true);
      document.removeEventListener("scroll", hide, true);
    },
  };
}

export default { render };
