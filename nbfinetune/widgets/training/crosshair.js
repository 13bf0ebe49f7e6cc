// The values at one step, over all plots of a run: with the pointer, or with the arrow keys.
const rateText = (value) => value.toExponential(1).replace("e+", "e");
const lossText = (value) => value.toPrecision(4);

// Where each plot has its axes, within `el`, px.
function areasOf(el) {
  const box = el.getBoundingClientRect();
  const rects = [...(el.closest(".nbft-over")?.querySelectorAll(".plotarea_events") ?? [])];
  return rects.map((node) => node.getBoundingClientRect()).filter((rect) => rect.width > 1)
    .map((rect) => ({
      x: rect.x - box.x, y: rect.y - box.y, width: rect.width, height: rect.height,
    }));
}

// The last index whose x is at most `x`, -1 where there is none.
function lastUpTo(xs, x) {
  let [low, high] = [0, xs.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

function between(ruler, x, column) {
  const after = ruler.findIndex((knot) => knot[0] >= x);
  if (after <= 0) return ruler[after === 0 ? 0 : ruler.length - 1][column];
  const [a, b] = [ruler[after - 1], ruler[after]];
  const share = b[0] > a[0] ? (x - a[0]) / (b[0] - a[0]) : 1;
  return a[column] + share * (b[column] - a[column]);
}

// What is told of x: the step and the epoch, then each line's value, as known then.
function rowsAt(model, marks, x) {
  const ruler = model.get("ruler");
  const step = Math.round(between(ruler, x, 1));
  const epoch = Math.max(Math.ceil(between(ruler, x, 2) - 1e-4), 1);
  const rows = [["step", String(step)], ["epoch", String(epoch)]];
  for (const { name, mark, kind } of model.get("lines")) {
    const model_ = marks.get(mark);
    if (!model_ || model.get("hidden").includes(name)) continue;
    const xs = model_.get("x");
    const ys = model_.get("y");
    const k = lastUpTo(xs, x * (1 + 1e-6) + 1e-6);
    if (k < 0) continue;
    const value = kind === "loss" && model.get("log") ? 10 ** ys[k] : ys[k];
    rows.push([name, kind === "rate" ? rateText(value) : lossText(value)]);
  }
  return rows;
}

function drawAt(svg, tip, areas, share, rows) {
  svg.replaceChildren();
  tip.hidden = !rows;
  if (!rows) return;
  for (const { x, y, width, height } of areas) {
    draw(svg, "path", { class: "nbft-crosshair", d: `M${x + share * width},${y}v${height}` });
  }
  tip.replaceChildren();
  for (const [name, value] of rows) {
    html(tip, "span", {}, name);
    html(tip, "b", {}, value);
  }
  const [{ x, y, width }] = areas;
  const at = x + share * width;
  const left = share > 0.5 ? at - tip.offsetWidth - 12 : at + 12;
  tip.style.left = `${Math.max(left, 0)}px`;
  tip.style.top = `${y + 10}px`;
}

function render({ model, el }) {
  el.classList.add("nbft-overlay");
  el.tabIndex = 0;
  el.setAttribute("data-lm-suppress-shortcuts", "true");
  el.setAttribute("role", "application");
  el.setAttribute("aria-label", "training curves; the arrow keys go from step to step");
  const kept = draw(el, "svg", { class: "nbft-drawn-over", "aria-hidden": "true" });
  const svg = draw(el, "svg", { class: "nbft-drawn-over", "aria-hidden": "true" });
  const tip = html(el, "div", { className: "nbft-tip", hidden: true });
  tip.setAttribute("aria-hidden", "true");
  const spoken = html(el, "div", { className: "nbft-spoken" });
  spoken.setAttribute("role", "status");
  const marks = new Map();
  let scale;
  let shown = null; // the x of the crosshair
  const ready = (async () => {
    const get = (id) => model.widget_manager.get_model(id);
    scale = await get(model.get("x_scale"));
    for (const { mark } of model.get("lines")) marks.set(mark, await get(mark));
  })();

  const show = (x, speak = false) => {
    shown = x;
    const areas = areasOf(el);
    if (x === null || !scale || !areas.length || !model.get("ruler").length) {
      drawAt(svg, tip, areas, 0, null);
      return;
    }
    const share = (x - scale.get("min")) / (scale.get("max") - scale.get("min"));
    const rows = rowsAt(model, marks, x);
    drawAt(svg, tip, areas, share, rows);
    if (speak) spoken.textContent = rows.map((row) => row.join(" ")).join(", ");
  };
  // The steps that are drawn: the crosshair stops at them.
  const steps = () => marks.get(model.get("lines")[0]?.mark)?.get("x") ?? [];
  const snapped = (x) => {
    const xs = steps();
    const k = lastUpTo(xs, x);
    if (k < 0) return xs.length ? xs[0] : null;
    return k + 1 < xs.length && xs[k + 1] - x < x - xs[k] ? xs[k + 1] : xs[k];
  };
  el.addEventListener("pointermove", (event) => {
    const box = el.getBoundingClientRect();
    const [dx, dy] = [event.clientX - box.x, event.clientY - box.y];
    const area = areasOf(el).find(({ x, y, width, height }) => (
      dx >= x && dx <= x + width && dy >= y && dy <= y + height));
    if (!area || !scale) return show(null);
    const share = (dx - area.x) / area.width;
    return show(snapped(scale.get("min") + share * (scale.get("max") - scale.get("min"))));
  });
  el.addEventListener("pointerleave", () => show(null));
  el.addEventListener("blur", () => show(null));
  el.addEventListener("focus", () => {
    if (el.matches(":focus-visible") && shown === null) show(snapped(Infinity), true);
  });
  // Keys stay here but for Escape, which goes back to the cell.
  el.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Escape") el.closest(".jp-Cell")?.focus({ preventScroll: true });
    const xs = steps();
    const page = Math.max(Math.round(xs.length / 10), 1);
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: page, PageDown: -page,
      Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined || !xs.length) return;
    event.preventDefault();
    const from = shown === null ? xs.length : lastUpTo(xs, shown * (1 + 1e-7));
    show(xs[Math.max(0, Math.min(xs.length - 1, from + by))], true);
  });
  const drawKept = () => {
    kept.replaceChildren();
    const [area] = areasOf(el);
    const x = model.get("kept");
    if (x === null || !area || !scale) return;
    const at = area.x + area.width * (x - scale.get("min")) / (scale.get("max") - scale.get("min"));
    draw(kept, "path", { class: "nbft-kept", d: `M${at},${area.y}v${area.height}` });
    const flipped = at > area.x + area.width - 60;
    const place = { x: at + (flipped ? -8 : 8), y: area.y + area.height - 8 };
    draw(kept, "text", { ...place, "text-anchor": flipped ? "end" : "start" }, "kept");
  };
  const all = () => { drawKept(); show(shown); };
  ready.then(() => {
    scale.on("change:max", all);
    all();
  });
  for (const name of ["kept", "ruler", "hidden", "log"]) model.on(`change:${name}`, all);
  const unwatch = watchPlot(el, all);
  return () => {
    unwatch();
    scale?.off("change:max", all);
  };
}

export default { render };
