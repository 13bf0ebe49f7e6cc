// What lies over the plot of a search: marker, number field, names, the values at the pointer.
// The plot below it is bqplot's; where its axes are is measured, not computed from its margins.
const KEYS = { // decades
  ArrowRight: 0.05, ArrowUp: 0.05, ArrowLeft: -0.05, ArrowDown: -0.05, PageUp: 0.5, PageDown: -0.5,
};
const ROW = 17; // px of a row of names
const GAP = 6; // px between a line and its name, and between two names
const PILL = { width: 54, height: 20 }; // px of the marker's number

const rateText = (value) => value.toExponential(1).replace("e+", "e");
const lossText = (value) => (Number.isFinite(value) ? value.toPrecision(4) : "none");

// A rate as a share of the axis, 0 to 1, and back.
function axis(model) {
  const low = Math.log10(model.get("min"));
  const decades = Math.log10(model.get("max")) - low;
  return {
    share: (lr) => Math.min(1, Math.max(0, (Math.log10(lr) - low) / decades)),
    rate: (share) => {
      if (share <= 0) return model.get("min");
      return share >= 1 ? model.get("max") : 10 ** (low + share * decades);
    },
    decades,
  };
}

// Names beside their lines: on the left where the right has no room, each in the first free row.
function drawNames(layer, area, names) {
  const rows = [];
  for (const { x, text, colour } of names) {
    const label = draw(layer, "text", { class: "nbft-name" }, text);
    label.style.fill = colour;
    const width = label.getComputedTextLength();
    const right = area.x + area.width;
    let left = x + GAP;
    if (left + width > right) left = x - GAP - width;
    left = Math.max(area.x + 4, Math.min(left, right - width - 4)); // with its paper
    let row = 0;
    const clashes = ([a, b]) => left < b + GAP && left + width + GAP > a;
    while (rows[row]?.some(clashes)) row += 1;
    (rows[row] ??= []).push([left, left + width]);
    label.setAttribute("x", left.toFixed(1));
    label.setAttribute("y", (area.y + 14 + ROW * row).toFixed(1));
  }
}

function drawLegend(layer, area, entries) {
  let right = area.x + area.width;
  for (const [kind, text, colour] of [...entries].reverse()) {
    const label = draw(layer, "text", { class: "nbft-legend", y: 13 }, text);
    right -= label.getComputedTextLength();
    label.setAttribute("x", right.toFixed(1));
    const [x, y] = [right - 24, 9];
    let sign;
    if (kind === "line") sign = draw(layer, "path", { d: `M${x},${y}h18`, "stroke-width": 2 });
    else if (kind === "dot") sign = draw(layer, "circle", { cx: x + 12, cy: y, r: 3 });
    else sign = draw(layer, "rect", { x, y: y - 5, width: 18, height: 10 });
    sign.setAttribute("class", `nbft-sign-${kind}`);
    sign.style.color = colour;
    right = x - 14;
  }
}

// What does not move with the marker: the usable range, the suggestions, the legend.
function drawFound(layer, names, area, model) {
  for (const part of [layer, names]) part.replaceChildren();
  const { share } = axis(model);
  const at = (lr) => area.x + share(lr) * area.width;
  const usable = model.get("usable");
  if (usable.length) {
    const [low, high] = usable.map(at);
    draw(layer, "rect", {
      class: "nbft-usable", x: low, y: area.y, width: Math.max(high - low, 1), height: area.height,
    });
  }
  const marks = model.get("marks").map(({ name, lr, colour }) => (
    { x: at(lr), text: `${name} ${rateText(lr)}`, colour }
  ));
  for (const { x, colour } of marks) {
    const line = draw(layer, "path", { class: "nbft-suggestion", d: `M${x},${area.y}v${area.height}` });
    line.style.stroke = colour;
  }
  drawNames(names, area, marks);
  drawLegend(layer, area, model.get("legend"));
}

// The steps that the pointer can show.
function stepsOf(model) {
  const view = model.get("curve");
  const bytes = view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
  const numbers = new Float32Array(bytes);
  const steps = [];
  for (let i = 0; i + 2 < numbers.length; i += 3) {
    steps.push({ lr: 10 ** numbers[i], loss: numbers[i + 1], smooth: numbers[i + 2] });
  }
  return steps;
}

function nearest(steps, lr) {
  const apart = (step) => Math.abs(Math.log(step.lr / lr));
  return steps.reduce((best, step) => (best && apart(best) <= apart(step) ? best : step), null);
}

// A line through the step, a dot on each of its losses, and their values in a box beside it.
function drawStep(layer, tip, area, model, step) {
  layer.replaceChildren();
  tip.hidden = !step;
  if (!step) return;
  const x = area.x + axis(model).share(step.lr) * area.width;
  const [low, high] = model.get("ends");
  const y = (loss) => {
    const share = Math.min(1, Math.max(0, (loss - low) / (high - low)));
    return area.y + (1 - share) * area.height;
  };
  draw(layer, "path", { class: "nbft-crosshair", d: `M${x},${area.y}v${area.height}` });
  for (const loss of [step.loss, step.smooth]) {
    if (Number.isFinite(loss)) draw(layer, "circle", { class: "nbft-at", cx: x, cy: y(loss), r: 4 });
  }
  tip.replaceChildren();
  const rows = [["rate", rateText(step.lr)], ["loss", lossText(step.loss)], ["smoothed", lossText(step.smooth)]];
  for (const [name, value] of rows) {
    html(tip, "span", {}, name);
    html(tip, "b", {}, value);
  }
  const left = x + tip.offsetWidth + 14 > area.x + area.width ? x - tip.offsetWidth - 12 : x + 12;
  tip.style.left = `${left}px`;
  // Away from the curve: in the half of the plot where it is not.
  const above = y(step.smooth) > area.y + area.height / 2;
  tip.style.top = `${above ? area.y + 44 : area.y + area.height - tip.offsetHeight - 10}px`;
}

function drawMarker(layer, handle, area, model) {
  layer.replaceChildren();
  const value = model.get("value");
  handle.hidden = value === null;
  if (value === null) return;
  const x = area.x + axis(model).share(value) * area.width;
  handle.style.left = `${x - PILL.width / 2}px`;
  handle.style.top = `${area.y - PILL.height - 4}px`;
  handle.style.height = `${area.height + PILL.height + 4}px`;
  handle.style.width = `${PILL.width}px`;
  draw(layer, "path", { class: "nbft-marker-line", d: `M${x},${area.y - 4}V${area.y + area.height}` });
  draw(layer, "rect", {
    class: "nbft-pill", x: x - PILL.width / 2, y: area.y - PILL.height - 4,
    width: PILL.width, height: PILL.height, rx: PILL.height / 2,
  });
  const text = { class: "nbft-rate", x, y: area.y - PILL.height / 2 - 3.5, "text-anchor": "middle" };
  draw(layer, "text", text, rateText(value));
}

// The marker's element, which has the focus, and its moves.
function addHandle(el, model, set, area) {
  const handle = html(el, "div", { className: "nbft-lr-handle", tabIndex: 0 });
  handle.setAttribute("role", "slider");
  handle.setAttribute("aria-label", "learning rate of the next run");
  handle.addEventListener("pointerdown", (event) => {
    handle.setPointerCapture(event.pointerId);
    handle.focus({ preventScroll: true });
    event.preventDefault();
    event.stopPropagation();
  });
  handle.addEventListener("pointermove", (event) => {
    if (!handle.hasPointerCapture(event.pointerId)) return;
    const { x, width } = area();
    set((event.clientX - el.getBoundingClientRect().x - x) / width);
  });
  handle.addEventListener("keydown", (event) => {
    const { share, decades } = axis(model);
    if (event.key === "Home") set(0);
    else if (event.key === "End") set(1);
    else if (event.key in KEYS) set(share(model.get("value")) + KEYS[event.key] / decades);
    else return;
    event.preventDefault();
  });
  return handle;
}

// The number field. Enter takes the number, and so does leaving it, if it is one.
function addField(bar, model) {
  const label = html(bar, "label", {}, "learning rate");
  const field = html(label, "input", { type: "text", autocomplete: "off", spellcheck: false });
  field.inputMode = "decimal";
  const show = () => { field.value = rateText(model.get("value")); };
  const take = () => {
    if (field.value === rateText(model.get("value"))) return true; // it has more digits than that
    const typed = Number(field.value.trim().replace(",", ".") || NaN);
    if (!(typed > 0 && Number.isFinite(typed))) return false;
    model.set("value", Math.min(Math.max(typed, model.get("min")), model.get("max")));
    model.save_changes();
    show();
    return true;
  };
  field.addEventListener("input", () => field.setCustomValidity(""));
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || take()) return;
    field.setCustomValidity("a number above 0, such as 1e-3");
    field.reportValidity();
  });
  field.addEventListener("blur", () => {
    field.setCustomValidity("");
    if (!take()) show();
  });
  return field;
}

// What screen readers say of the marker.
function speak(handle, model, step) {
  const { share, rate } = axis(model);
  const value = model.get("value");
  const shown = { min: model.get("min"), max: model.get("max"), now: rate(share(value)) };
  for (const [name, number] of Object.entries(shown)) {
    handle.setAttribute(`aria-value${name}`, number.toFixed(12)); // not 1e-7, which axe refuses
  }
  const losses = step ? `, loss ${lossText(step.loss)}, smoothed ${lossText(step.smooth)}` : "";
  handle.setAttribute("aria-valuetext", rateText(value) + losses);
}

// Keys stay here but for Escape, which goes back to the cell: "m" or "d d" would change it.
function keepKeys(el) {
  el.setAttribute("data-lm-suppress-shortcuts", "true");
  el.addEventListener("keydown", (event) => {
    const cell = el.closest(".jp-Cell");
    if (event.key === "Escape") cell?.focus({ preventScroll: true });
    event.stopPropagation();
  });
}

// Calls back with the share of the axis under the pointer, null beside the plot.
function followPointer(el, area, at) {
  el.addEventListener("pointermove", (event) => {
    const { x, y, width, height } = area();
    const box = el.getBoundingClientRect();
    const [dx, dy] = [event.clientX - box.x - x, event.clientY - box.y - y];
    at(dx >= 0 && dx <= width && dy >= 0 && dy <= height ? dx / width : null);
  });
  el.addEventListener("pointerleave", () => at(null));
}

function render({ model, el }) {
  el.classList.add("nbft-lr-overlay");
  const overlay = draw(el, "svg", { class: "nbft-drawn", "aria-hidden": "true" });
  const [found, stepLayer, marker, names] = [0, 1, 2, 3].map(() => draw(overlay, "g"));
  const area = () => areaOf(el, model);
  const set = (share) => {
    model.set("value", axis(model).rate(share));
    model.save_changes();
  };
  const handle = addHandle(el, model, set, area);
  const tip = html(el, "div", { className: "nbft-tip", hidden: true });
  tip.setAttribute("aria-hidden", "true");
  const bar = html(el, "div", { className: "nbft-bar" });
  const field = addField(bar, model);
  const save = html(bar, "button", { className: "nbft-button", type: "button" }, "Save picture");
  save.addEventListener("click", () => savePicture(el.closest(".nbft-over"), overlay, "lr_find.png"));
  let steps = stepsOf(model);

  const point = (step) => drawStep(stepLayer, tip, area(), model, step);
  const move = () => {
    const value = model.get("value");
    drawMarker(marker, handle, area(), model);
    bar.style.visibility = value === null ? "hidden" : ""; // its room is kept: nothing jumps
    if (value === null) return;
    if (document.activeElement !== field) field.value = rateText(value);
    const step = nearest(steps, value);
    speak(handle, model, step);
    if (handle.matches(":focus-visible")) point(step);
  };
  const all = () => {
    drawFound(found, names, area(), model);
    point(null);
    move();
  };
  followPointer(el, area, (share) => point(share === null ? null : nearest(steps, axis(model).rate(share))));
  handle.addEventListener("focus", move);
  handle.addEventListener("blur", () => point(null));
  keepKeys(el);
  model.on("change:value", move);
  model.on("change:curve", () => { steps = stepsOf(model); move(); });
  for (const name of ["min", "max", "margin", "marks", "usable", "ends", "legend"]) {
    model.on(`change:${name}`, all);
  }
  const unwatch = watchPlot(el, all);
  all();
  return unwatch;
}

export default { render };
