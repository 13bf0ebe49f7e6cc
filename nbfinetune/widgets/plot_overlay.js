// For what lies over a bqplot figure: where its axes are, and both as one picture.
// It stands before the module that uses it; the boxes of both lie in one of class nbft-over.
const SVG = "http://www.w3.org/2000/svg";
const STYLES = [
  "fill", "fill-opacity", "stroke", "stroke-opacity", "stroke-width", "stroke-dasharray", "opacity",
  "display", "visibility", "font-family", "font-size", "font-weight", "text-anchor", "paint-order",
  "stroke-linejoin", "shape-rendering", "dominant-baseline",
];

function html(parent, tag, properties = {}, text = "") {
  const node = Object.assign(document.createElement(tag), properties);
  node.textContent = text;
  parent.appendChild(node);
  return node;
}

function draw(parent, tag, attributes = {}, text = "") {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text;
  parent.appendChild(node);
  return node;
}

// The plot's area within `el`, px; before the plot is there, what its margins leave.
function areaOf(el, model) {
  const box = el.getBoundingClientRect();
  const rect = el.closest(".nbft-over")?.querySelector(".plotarea_events")?.getBoundingClientRect();
  if (rect?.width > 1) {
    return { x: rect.x - box.x, y: rect.y - box.y, width: rect.width, height: rect.height };
  }
  const { left, right, top, bottom } = model.get("margin");
  return {
    x: left, y: top,
    width: Math.max(box.width - left - right, 1), height: Math.max(box.height - top - bottom, 1),
  };
}

// Calls back when the plot's axes may stand elsewhere: it draws itself some time after its box.
function watchPlot(el, moved) {
  let rect;
  const find = () => {
    rect ??= el.closest(".nbft-over")?.querySelector(".plotarea_events");
    if (rect) {
      added.disconnect();
      resized.observe(rect);
    }
  };
  const added = new MutationObserver(find);
  const resized = new ResizeObserver(() => {
    const over = el.closest(".nbft-over");
    if (over && !rect) {
      added.observe(over, { childList: true, subtree: true });
      find();
    }
    moved();
  });
  resized.observe(el);
  return () => { resized.disconnect(); added.disconnect(); };
}

// A copy of a drawing that needs no style sheet: colours of the theme become plain ones.
function frozen(svg, width, height) {
  const copy = svg.cloneNode(true);
  const nodes = [svg, ...svg.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((node, k) => {
    const style = getComputedStyle(nodes[k]);
    for (const name of STYLES) node.style.setProperty(name, style.getPropertyValue(name));
  });
  for (const [name, value] of [["width", width], ["height", height], ["x", 0], ["y", 0]]) {
    copy.setAttribute(name, value);
  }
  return copy;
}

// The plot and what lies over it as one PNG file, at twice the size for a sharp print.
async function savePicture(over, overlay, name) {
  const { width, height } = overlay.getBoundingClientRect();
  const whole = document.createElementNS(SVG, "svg");
  whole.setAttribute("xmlns", SVG);
  whole.setAttribute("width", width);
  whole.setAttribute("height", height);
  const paper = draw(whole, "rect", { width, height });
  paper.style.fill = getComputedStyle(over).backgroundColor;
  for (const svg of [...over.querySelectorAll(".bqplot > svg"), overlay]) {
    whole.appendChild(frozen(svg, width, height));
  }
  const image = new Image();
  const text = new XMLSerializer().serializeToString(whole);
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [2 * width, 2 * height];
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((done) => { canvas.toBlob(done, "image/png"); });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
