// One picture in a dialog: to step through the list, to zoom and move, to mark, to see where the
// network looked.
const MOST = 12; // times the size that fits
const STEP = 1.4;
const PAN = 60; // px of an arrow key

function enlargedPicture(panel, model) {
  const dialog = add(panel, "dialog", { className: "nbft-large" });
  dialog.setAttribute("aria-label", "enlarged picture");
  const bar = add(dialog, "div", { className: "nbft-large-bar" });
  const step = (by) => model.send({ event: "step", by });
  const back = addButton(bar, "\u2039 Previous", () => step(-1), "nbft-back");
  const where = add(bar, "span", { className: "nbft-where" });
  where.setAttribute("role", "status");
  const on = addButton(bar, "Next \u203a", () => step(1), "nbft-on");
  add(bar, "span", { className: "nbft-space" });
  const zooms = add(bar, "span", { className: "nbft-group" });
  addButton(zooms, "\u2212", () => zoom(scale / STEP)).setAttribute("aria-label", "zoom out");
  const percent = addButton(zooms, "100%", () => zoom(1), "nbft-percent");
  percent.title = "back to the size that fits (key 0)";
  addButton(zooms, "+", () => zoom(scale * STEP)).setAttribute("aria-label", "zoom in");
  const looks = add(bar, "label", { className: "nbft-look" }, "where did it look: ");
  const look = add(looks, "select");
  for (const of of ["off", "predicted", "actual"]) add(look, "option", { value: of }, of);
  addButton(bar, "Close", () => dialog.close(), "nbft-close");

  const stage = add(dialog, "div", { className: "nbft-stage", tabIndex: 0 });
  stage.setAttribute("role", "group");
  stage.setAttribute("aria-label", "picture; left and right step, + and - zoom, 0 fits, arrows move it when zoomed");
  const image = add(stage, "img", { draggable: false });
  const missing = add(stage, "p", { className: "nbft-problem" });
  const side = add(dialog, "div", { className: "nbft-large-side" });
  const text = add(side, "div", { className: "nbft-large-text" });
  const looked = add(side, "div", { className: "nbft-looked" });
  looked.setAttribute("role", "status");
  const acts = add(side, "div", { className: "nbft-group" });
  const marks = addMarkList(acts, {
    name: "mark this picture",
    vocab: () => model.get("vocab"),
    likely: () => model.get("large").top ?? [],
    actual: () => model.get("large").actual,
    mark: (action, label) => model.send({ event: "mark", items: [model.get("large").item], action, label }),
    say: (words) => { line.textContent = words; },
  });
  const copy = addButton(acts, "Copy path", () => copyPath(), "nbft-copy");
  const line = add(side, "div");
  line.setAttribute("role", "status");
  const problem = add(side, "div", { className: "nbft-problem" });
  problem.setAttribute("role", "alert");

  let [scale, x, y] = [1, 0, 0];
  let urls = [];
  const place = () => {
    const { clientWidth: w, clientHeight: h } = stage;
    x = Math.min(Math.max(x, (-(scale - 1) * w) / 2), ((scale - 1) * w) / 2);
    y = Math.min(Math.max(y, (-(scale - 1) * h) / 2), ((scale - 1) * h) / 2);
    image.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    stage.dataset.zoomed = scale > 1 ? "yes" : "";
    percent.textContent = `${Math.round(scale * 100)}%`;
  };
  // What lies at (px, py) from the middle stays there.
  const zoom = (to, px = 0, py = 0) => {
    const next = Math.min(Math.max(to, 1), MOST);
    [x, y] = [px - ((px - x) * next) / scale, py - ((py - y) * next) / scale];
    scale = next;
    place();
  };
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = stage.getBoundingClientRect();
    const [px, py] = [event.clientX - box.x - box.width / 2, event.clientY - box.y - box.height / 2];
    zoom(scale * Math.exp(-event.deltaY / 400), px, py);
  }, { passive: false });
  stage.addEventListener("pointerdown", (event) => {
    if (scale > 1 && event.button === 0) stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    if (!stage.hasPointerCapture(event.pointerId)) return;
    [x, y] = [x + event.movementX, y + event.movementY];
    place();
  });
  stage.addEventListener("dblclick", () => zoom(scale > 1 ? 1 : 2 * STEP));

  const moves = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  const onKey = (event) => {
    event.stopPropagation(); // else JupyterLab would act on the cell behind
    if (event.target.tagName === "SELECT" || event.ctrlKey || event.metaKey || event.altKey) return;
    const move = moves[event.key];
    if (move && scale > 1) { [x, y] = [x + PAN * move[0], y + PAN * move[1]]; place(); }
    else if (event.key === "ArrowLeft" || event.key === "PageUp") back.click();
    else if (event.key === "ArrowRight" || event.key === "PageDown") on.click();
    else if (event.key === "+" || event.key === "=") zoom(scale * STEP);
    else if (event.key === "-") zoom(scale / STEP);
    else if (event.key === "0") zoom(1);
    else return;
    event.preventDefault();
  };
  dialog.addEventListener("keydown", onKey);

  const copyPath = async () => {
    const { path } = model.get("large");
    try {
      await navigator.clipboard.writeText(path);
    } catch { // not allowed, or the page is not served safely
      const area = add(dialog, "textarea", { value: path, className: "nbft-spoken" });
      area.select();
      document.execCommand("copy");
      area.remove();
      copy.focus();
    }
    line.textContent = "path copied";
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy path"; }, 1500);
  };

  const row = (name, value, number) => {
    const part = add(text, "div", { className: "nbft-row" });
    add(part, "span", { className: "nbft-what" }, name);
    addName(part, value);
    add(part, "span", { className: "nbft-number" }, number);
  };
  const describe = (t) => {
    text.replaceChildren();
    addName(add(text, "div", { className: "nbft-path" }), t.path || t.file);
    row("actual", t.actual, t.p_actual);
    row("predicted", t.predicted, t.p_predicted);
    row("loss", t.loss, "");
    add(text, "div", { className: "nbft-what" }, "most probable");
    for (const [name, p] of t.classes) {
      const part = add(text, "div", { className: "nbft-class" });
      addName(part, name);
      add(part, "span", { className: "nbft-number" }, p.toFixed(2));
      add(part, "span", { className: "nbft-share" }).style.width = `${100 * p}%`;
    }
  };
  const source = (jpeg) => {
    urls.forEach((url) => URL.revokeObjectURL(url));
    urls = jpeg ? [URL.createObjectURL(new Blob([jpeg], { type: "image/jpeg" }))] : [];
    if (jpeg) image.src = urls[0];
    else image.removeAttribute("src");
    image.hidden = !jpeg;
  };
  const draw = () => {
    const t = model.get("large");
    if (!dialog.open || t.item === undefined) return;
    const laid = model.get("look");
    const over = laid.item === t.item && laid.of === model.get("looking") ? laid : {};
    source(over.jpeg ?? t.jpeg);
    stage.dataset.look = over.jpeg ? over.of : "off";
    looked.textContent = over.line ?? "";
    image.alt = t.words;
    missing.textContent = t.problem;
    where.textContent = `${t.position + 1} of ${t.n}`;
    enable(back, t.position > 0);
    enable(on, t.position < t.n - 1);
    enable(copy, Boolean(t.path));
    look.value = model.get("looking");
    dialog.dataset.item = t.item;
  };
  const renew = () => {
    if (!dialog.open) return;
    describe(model.get("large"));
    line.textContent = "";
    marks.renew();
    marked();
    [scale, x, y] = [1, 0, 0];
    place();
    draw();
  };
  const marked = () => marks.called(model.get("large_mark") || "mark \u2026");

  look.addEventListener("change", () => model.send({ event: "look", of: look.value }));
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => {
    model.send({ event: "enlarge", item: -1 });
    panel.querySelector(`[data-item="${dialog.dataset.item}"] .nbft-open`)?.focus();
  });
  model.on("change:large", renew);
  model.on("change:look", draw);
  model.on("change:large_mark", marked);
  model.on("change:said", () => { line.textContent = model.get("said"); });
  model.on("change:problem", () => { problem.textContent = model.get("problem"); });
  window.addEventListener("resize", place);
  return {
    dialog,
    open: (t) => {
      source(null);
      text.replaceChildren();
      looked.textContent = missing.textContent = problem.textContent = "";
      dialog.dataset.item = t.item;
      dialog.showModal();
      stage.focus();
      model.send({ event: "enlarge", item: t.item });
    },
    end: () => { source(null); window.removeEventListener("resize", place); },
  };
}
