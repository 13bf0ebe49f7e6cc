// The legend of a plot, whose entries switch lines off and on, and the choice of its axes.
const SVG = "http://www.w3.org/2000/svg";
const SMOOTHING = [0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98]; // even steps of the slider

function swatch(look, colour) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [name, value] of [["width", 20], ["height", 10], ["aria-hidden", "true"]]) {
    svg.setAttribute(name, value);
  }
  svg.style.color = colour;
  const dashed = look === "dashes" ? ' stroke-dasharray="4 3"' : "";
  const line = `<path d="M0,5h20" stroke="currentColor" stroke-width="2"${dashed}/>`;
  const square = '<rect x="7" y="2" width="6" height="6" fill="currentColor"/>';
  const dots = [3, 10, 17].map((x) => `<circle cx="${x}" cy="5" r="2" fill="currentColor"/>`);
  svg.innerHTML = look === "dots" ? dots.join("") : line + (look === "line" ? "" : square);
  return svg;
}

function add(parent, tag, properties = {}, text = "") {
  const node = Object.assign(document.createElement(tag), properties);
  node.textContent = text;
  parent.appendChild(node);
  return node;
}

function addLegend(el, model) {
  const legend = add(el, "div", { className: "nbft-toggles" });
  legend.setAttribute("role", "group");
  legend.setAttribute("aria-label", "lines shown");
  for (const { name, colour, look } of model.get("series")) {
    const entry = add(legend, "button", { type: "button", className: "nbft-toggle" });
    entry.append(swatch(look, colour), name);
    const show = () => {
      entry.setAttribute("aria-pressed", String(!model.get("hidden").includes(name)));
    };
    entry.addEventListener("click", () => {
      const others = model.get("hidden").filter((other) => other !== name);
      const shown = !model.get("hidden").includes(name);
      model.set("hidden", shown ? [...others, name] : others);
      model.save_changes();
      show();
    });
    model.on("change:hidden", show);
    show();
  }
}

function addChoice(row, model, trait, label, name, choices) {
  const select = add(add(row, "label", {}, label), "select");
  select.setAttribute("aria-label", name);
  for (const [value, text] of choices) add(select, "option", { value: String(value) }, text);
  const show = () => { select.value = String(model.get(trait)); };
  select.addEventListener("change", () => {
    const chosen = choices.find(([value]) => String(value) === select.value);
    model.set(trait, chosen[0]);
    model.save_changes();
  });
  model.on(`change:${trait}`, show);
  show();
}

function addSmoothing(row, model) {
  const label = add(row, "label", {}, "smoothing");
  const range = add(label, "input", { type: "range", min: 0, max: SMOOTHING.length - 1, step: 1 });
  range.setAttribute("aria-label", "smoothing");
  const output = add(label, "output");
  const show = () => {
    const value = model.get("smoothing");
    range.value = SMOOTHING.indexOf(value);
    output.textContent = value ? String(value) : "none";
    range.setAttribute("aria-valuetext", output.textContent);
  };
  range.addEventListener("input", () => {
    model.set("smoothing", SMOOTHING[Number(range.value)]);
    model.save_changes();
    show();
  });
  model.on("change:smoothing", show);
  show();
}

function addEarlier(row, model) {
  const label = add(row, "label");
  const box = add(label, "input", { type: "checkbox" });
  const text = add(label, "span");
  const show = () => {
    const n = model.get("n_earlier");
    label.hidden = !n;
    box.checked = model.get("earlier");
    text.textContent = n === 1 ? "earlier run" : `${n} earlier runs`;
  };
  box.addEventListener("change", () => {
    model.set("earlier", box.checked);
    model.save_changes();
  });
  model.on("change:earlier change:n_earlier", show);
  show();
}

function render({ model, el }) {
  el.classList.add("nbft-options");
  el.setAttribute("data-lm-suppress-shortcuts", "true");
  // Keys stay here but for Escape, which goes back to the cell.
  el.addEventListener("keydown", (event) => {
    if (event.key === "Escape") el.closest(".jp-Cell")?.focus({ preventScroll: true });
    event.stopPropagation();
  });
  addLegend(el, model);
  const row = add(el, "div", { className: "nbft-choices" });
  addChoice(row, model, "x_by", "over", "curves over", [["step", "steps"], ["epoch", "epochs"], ["time", "time"]]);
  addChoice(row, model, "log", "loss", "loss axis", [[false, "linear"], [true, "log"]]);
  addSmoothing(row, model);
  addEarlier(row, model);
}

export default { render };
