// A confusion matrix on a canvas: any number of classes, every cell for the mouse and the keyboard.
const ERROR = [213, 94, 0]; // Okabe and Ito's vermilion and blue: apart for colour-blind eyes
const RIGHT = [0, 114, 178];
const LABELLED = 60; // classes up to which names are drawn: below 10 px they cannot be read
const NUMBERED = 22; // px of a cell that holds its number
const NEAR = 4; // px: a click beside a tiny cell that is not empty means that cell
const STEPS = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };

function render({ model, el }) {
  const box = document.createElement("div");
  box.className = "nbft-matrix-box";
  const canvas = document.createElement("canvas");
  canvas.className = "nbft-matrix";
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-roledescription", "confusion matrix");
  const line = document.createElement("div");
  line.className = "nbft-matrix-line";
  line.setAttribute("role", "status");
  box.appendChild(canvas);
  el.append(box, line);
  const pen = canvas.getContext("2d");

  let view; // what the model holds, decoded
  let at = [0, 0]; // the cell that the keyboard is at

  const read = (name, Kind) => {
    const bytes = model.get(name);
    return new Kind(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
  };
  const decode = () => {
    const names = model.get("names");
    const n = names.length;
    const numbers = read("numbers", Uint32Array);
    const place = new Map();
    numbers.forEach((number, k) => place.set(number, k));
    const cell = Math.max(1, Math.min(36, model.get("size") / n));
    const margin = n <= LABELLED ? Math.min(140, 28 + 7 * Math.max(...names.map((t) => t.length), 1)) : 18;
    view = {
      names, n, numbers, place, cell, margin, extent: Math.round(cell * n), others: model.get("others"),
      version: model.get("version"),
      counts: read("counts", Uint32Array), shares: read("shares", Float32Array),
      shades: read("shades", Float32Array),
    };
  };
  const text = (i, j) => {
    const k = view.place.get(i * view.n + j);
    const what = `actual ${view.names[i]}, predicted ${view.names[j]}: `;
    if (k === undefined) return `${what}0`;
    return `${what}${view.counts[k]} (${(100 * view.shares[k]).toFixed(1)} % ${model.get("of")})`;
  };
  const colour = (k) => {
    const [i, j] = [Math.floor(view.numbers[k] / view.n), view.numbers[k] % view.n];
    const right = i === j && !(view.others && i === view.n - 1);
    const base = right ? RIGHT : ERROR;
    const shade = 0.12 + 0.88 * view.shades[k]; // no cell that counts is white
    return base.map((c) => Math.round(255 + (c - 255) * shade));
  };
  const cut = (name, px) => {
    const most = Math.max(3, Math.floor(px / 6));
    return name.length > most ? `${name.slice(0, most - 1)}\u2026` : name;
  };

  const draw = () => {
    const { n, names, cell, margin, extent } = view;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [margin + extent + 2, margin + extent + 2];
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.fillStyle = "white";
    pen.fillRect(0, 0, width, height);
    if (!n) return;
    // All cells as one picture of a pixel each, scaled: a million cells cost no more than its copy.
    const small = new OffscreenCanvas(n, n);
    const pixels = new ImageData(n, n);
    pixels.data.fill(255);
    for (let k = 0; k < view.numbers.length; k++) pixels.data.set(colour(k), 4 * view.numbers[k]);
    small.getContext("2d").putImageData(pixels, 0, 0);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(small, margin, 0, extent, extent);
    pen.strokeStyle = "#999";
    pen.lineWidth = 1;
    pen.strokeRect(margin - 0.5, 0.5, extent + 1, extent);
    if (cell >= 8) {
      pen.strokeStyle = "#e4e4e4";
      pen.beginPath();
      for (let i = 1; i < n; i++) {
        pen.moveTo(margin + i * cell, 1);
        pen.lineTo(margin + i * cell, extent);
        pen.moveTo(margin, i * cell);
        pen.lineTo(margin + extent, i * cell);
      }
      pen.stroke();
    }
    const font = Math.max(9, Math.min(12, cell - 1));
    pen.font = `${font}px sans-serif`;
    pen.fillStyle = "#222";
    pen.textBaseline = "middle";
    if (n <= LABELLED) {
      for (let i = 0; i < n; i++) {
        pen.textAlign = "right";
        pen.fillText(cut(names[i], margin - 28), margin - 4, (i + 0.5) * cell);
        pen.save();
        pen.translate(margin + (i + 0.5) * cell, extent + 4);
        pen.rotate(-Math.PI / 2);
        pen.fillText(cut(names[i], margin - 28), 0, 0);
        pen.restore();
      }
    }
    pen.textAlign = "center";
    pen.font = "11px sans-serif";
    pen.fillStyle = "#444";
    pen.fillText("predicted", margin + extent / 2, height - 6);
    pen.save();
    pen.translate(7, extent / 2);
    pen.rotate(-Math.PI / 2);
    pen.fillText("actual", 0, 0);
    pen.restore();
    if (cell >= NUMBERED) {
      for (let k = 0; k < view.numbers.length; k++) {
        const [i, j] = [Math.floor(view.numbers[k] / n), view.numbers[k] % n];
        pen.fillStyle = view.shades[k] > 0.6 ? "white" : "#222";
        const number = model.get("normalize") === "none"
          ? String(view.counts[k]) : view.shares[k].toFixed(2).replace(/^0/, "");
        pen.fillText(number, margin + (j + 0.5) * cell, (i + 0.5) * cell);
      }
    }
    const [i, j] = model.get("selected");
    if (i >= 0 && i < n && j < n) frame(i, j, "black");
    if (document.activeElement === canvas) frame(...at, "#0072b2");
  };
  const frame = (i, j, style) => {
    const { cell, margin } = view;
    const side = Math.max(cell, 7);
    const shift = (side - cell) / 2;
    pen.strokeStyle = style;
    pen.lineWidth = 2;
    pen.strokeRect(margin + j * cell - shift, i * cell - shift, side, side);
  };

  const cellOf = (event) => {
    const bounds = canvas.getBoundingClientRect();
    const { cell, margin, n } = view;
    const [x, y] = [event.clientX - bounds.left - margin, event.clientY - bounds.top];
    const [i, j] = [Math.floor(y / cell), Math.floor(x / cell)];
    if (i < 0 || j < 0 || i >= n || j >= n) return null;
    if (cell >= NEAR || view.place.has(i * n + j)) return [i, j];
    let best = null;
    let least = (NEAR / cell) ** 2;
    for (const number of view.numbers) {
      const [a, b] = [Math.floor(number / n), number % n];
      const apart = (a + 0.5 - y / cell) ** 2 + (b + 0.5 - x / cell) ** 2;
      if (apart < least) [best, least] = [[a, b], apart];
    }
    return best ?? [i, j];
  };
  const say = (i, j) => { line.textContent = text(i, j); };
  const open = (i, j) => {
    at = [i, j];
    say(i, j);
    // A trait would keep back the same cell again.
    model.send({ event: "cell", cell: [i, j], version: view.version });
  };

  canvas.addEventListener("mousemove", (event) => {
    const cell = cellOf(event);
    canvas.title = cell ? text(...cell) : "";
    line.setAttribute("aria-live", "off"); // hovering is for the eye
    if (cell) say(...cell);
  });
  canvas.addEventListener("click", (event) => {
    const cell = cellOf(event);
    if (cell) open(...cell);
  });
  canvas.addEventListener("keydown", (event) => {
    const n = view.n;
    if (event.key in STEPS) {
      const step = event.ctrlKey ? 10 : 1;
      at = at.map((v, k) => Math.min(n - 1, Math.max(0, v + step * STEPS[event.key][k])));
    } else if (event.key === "Home") at = [at[0], 0];
    else if (event.key === "End") at = [at[0], n - 1];
    else if (event.key === "Enter" || event.key === " ") open(...at);
    else return;
    event.preventDefault();
    event.stopPropagation();
    line.setAttribute("aria-live", "polite");
    say(...at);
    draw();
  });
  canvas.addEventListener("focus", () => { if (view.n) { say(...at); draw(); } });
  canvas.addEventListener("blur", draw);

  const all = () => {
    decode();
    at = model.get("selected").map((v) => Math.min(Math.max(v, 0), Math.max(view.n - 1, 0)));
    canvas.setAttribute("aria-label", `${model.get("title")}. Arrow keys move, Enter opens a cell`);
    draw();
    Object.assign(canvas.dataset, { cell: view.cell, margin: view.margin });
    canvas.dataset.painted = String(Number(canvas.dataset.painted ?? 0) + 1);
  };
  model.on("change:version", all); // one event for all that changes together
  model.on("change:selected", draw);
  all();
}

export default { render };
