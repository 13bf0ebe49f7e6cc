// Thumbnails in pages, each to enlarge, to choose and to mark; with pictures.js and
// enlarged_picture.js before it in one module.
const QUIET = 250; // ms after a key before the kernel is asked to find
const SUPPRESS = "data-lm-suppress-shortcuts";

// Keys that JupyterLab keeps: running the cell, and leaving the panel.
const passes = (event) => event.key === "Escape" || (event.key === "Enter" && (event.shiftKey || event.ctrlKey));

function render({ model, el }) {
  const panel = add(el, "section", { className: "nbft-image-panel", hidden: true });
  panel.setAttribute("aria-label", "pictures");
  panel.setAttribute(SUPPRESS, "true");
  const head = add(panel, "div", { className: "nbft-image-panel-head" });
  const title = add(head, "h4");
  title.setAttribute("aria-live", "polite");

  const tools = add(head, "div", { className: "nbft-tools" });
  const finding = add(tools, "span", { className: "nbft-group" });
  const find = add(finding, "input", { type: "search", className: "nbft-find", placeholder: "find a file or class" });
  find.setAttribute("aria-label", "find pictures by file or class");
  const sort = add(add(finding, "label", {}, "sort by "), "select", { className: "nbft-sort" });
  for (const [order, text] of model.get("orders")) add(sort, "option", { value: order }, text);
  const paging = add(tools, "span", { className: "nbft-group" });
  const turn = (by) => model.send({ event: "page", page: model.get("page") + by });
  const previous = addButton(paging, "Previous page", () => turn(-1), "nbft-previous");
  const where = add(paging, "span");
  const next = addButton(paging, "Next page", () => turn(1), "nbft-next");

  const choosing = add(tools, "span", { className: "nbft-group" });
  addButton(choosing, "All on this page", () => choose(model.get("thumbs").map((t) => t.item), true), "nbft-all");
  const none = addButton(choosing, "None", () => { chosen.clear(); showChosen(); }, "nbft-none");
  const howMany = add(choosing, "span", { className: "nbft-chosen" });
  howMany.setAttribute("role", "status");
  const markChosen = addMarkList(choosing, {
    name: "mark all chosen pictures",
    vocab: () => model.get("vocab"),
    mark: (action, label) => {
      model.send({ event: "mark", items: [...chosen], action, label });
      chosen.clear();
      showChosen();
    },
    say: (text) => { line.textContent = text; },
  });
  markChosen.called("mark the chosen \u2026");
  const undo = addButton(tools, "Undo mark", () => model.send({ event: "undo" }), "nbft-undo");

  const line = add(panel, "div", { className: "nbft-said" });
  line.setAttribute("role", "status");
  const found = add(panel, "div", { className: "nbft-found" });
  found.setAttribute("role", "status");
  const problem = add(panel, "div", { className: "nbft-problem" });
  problem.setAttribute("role", "alert");
  const grid = add(panel, "div", { className: "nbft-thumbs" });
  const large = enlargedPicture(panel, model);
  const chosen = new Set();
  let anchor = null; // the item that a range begins at
  const urls = [];

  const url = (view) => {
    const made = URL.createObjectURL(new Blob([view], { type: "image/jpeg" }));
    urls.push(made);
    return made;
  };
  const choose = (items, yes) => {
    for (const item of items) yes ? chosen.add(item) : chosen.delete(item);
    showChosen();
  };
  // One picture changes; with shift all from the one before to it become as it.
  const toggle = (item, range) => {
    const items = model.get("thumbs").map((t) => t.item);
    const [a, b] = [items.indexOf(range ? anchor : item), items.indexOf(item)];
    const yes = range && a >= 0 ? true : !chosen.has(item);
    choose(a < 0 ? [item] : items.slice(Math.min(a, b), Math.max(a, b) + 1), yes);
    anchor = item;
  };
  const showChosen = () => {
    for (const node of grid.children) {
      const yes = chosen.has(Number(node.dataset.item));
      node.dataset.chosen = yes ? "yes" : "";
      node.querySelector("input").checked = yes;
    }
    howMany.textContent = chosen.size ? `${chosen.size} chosen` : "";
    enable(none, chosen.size > 0);
  };

  const figure = (t) => {
    const node = add(grid, "figure", { className: "nbft-thumb" });
    node.dataset.item = t.item;
    node.title = t.words;
    // The picture beside it takes Space: one stop fewer for Tab.
    const box = add(add(node, "label", { className: "nbft-choose" }), "input", { type: "checkbox", tabIndex: -1 });
    box.setAttribute("aria-label", `choose ${t.file}`);
    box.addEventListener("click", (event) => toggle(t.item, event.shiftKey));
    const open = add(node, "button", { type: "button", className: "nbft-open" });
    open.setAttribute("aria-label", `enlarge ${t.words}; Space chooses it`);
    if (t.jpeg) add(open, "img", { src: url(t.jpeg), alt: t.words });
    else add(open, "span", { className: "nbft-missing" }, t.problem);
    open.addEventListener("click", (event) => (event.shiftKey ? toggle(t.item, true) : large.open(t)));
    open.addEventListener("keydown", (event) => {
      if (event.key === " ") { event.preventDefault(); toggle(t.item, event.shiftKey); }
      else walk(event, node);
    });
    open.addEventListener("keyup", (event) => { if (event.key === " ") event.preventDefault(); });
    const row = (name, value, number) => {
      const part = add(node, "div", { className: "nbft-row" });
      const words = add(part, "span", { className: "nbft-words" });
      add(words, "span", { className: "nbft-what" }, `${name} `);
      if (value) addName(words, value);
      add(part, "span", { className: "nbft-number" }, number);
    };
    row("predicted", t.predicted, t.p_predicted);
    row("actual", t.actual, t.p_actual);
    row("loss", "", t.loss);
    addName(add(node, "div", { className: "nbft-words" }), t.file, "nbft-file");
    addMarkList(node, {
      name: `mark ${t.file}`,
      vocab: () => model.get("vocab"),
      likely: () => t.top,
      actual: () => t.actual,
      mark: (action, label) => model.send({ event: "mark", items: [t.item], action, label }),
      say: (text) => { line.textContent = text; },
    });
  };
  // Arrow keys go from picture to picture, as they lie on the page.
  const walk = (event, node) => {
    const nodes = [...grid.children];
    const columns = nodes.filter((each) => each.offsetTop === nodes[0].offsetTop).length;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    const to = nodes[nodes.indexOf(node) + by];
    if (by === undefined) return;
    event.preventDefault();
    to?.querySelector(".nbft-open").focus();
  };

  const draw = () => {
    while (urls.length) URL.revokeObjectURL(urls.pop());
    grid.replaceChildren();
    model.get("thumbs").forEach(figure);
    marks();
    showChosen();
    panel.hidden = !model.get("heading");
    panel.dataset.drawn = String(Number(panel.dataset.drawn ?? 0) + 1);
  };
  const marks = () => {
    const texts = model.get("marks");
    [...grid.children].forEach((node, k) => {
      node.dataset.mark = texts[k] ?? "";
      node.querySelector("select").called(texts[k] || "mark \u2026");
    });
    enable(undo, model.get("n_marks") > 0);
  };
  const headline = () => {
    const [page, pages] = [model.get("page"), model.get("n_pages")];
    title.textContent = model.get("heading");
    where.textContent = pages > 1 ? `page ${page + 1} of ${pages}` : "";
    found.textContent = model.get("count");
    paging.hidden = pages < 2;
    finding.hidden = choosing.hidden = model.get("n_items") < 2;
    undo.hidden = model.get("n_items") < 1 && model.get("n_marks") < 1;
    if (find.value !== model.get("query") && document.activeElement !== find) find.value = model.get("query");
    sort.value = model.get("order");
    enable(previous, page > 0);
    enable(next, page < pages - 1);
  };

  let timer;
  find.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => model.send({ event: "find", text: find.value }), QUIET);
  });
  sort.addEventListener("change", () => model.send({ event: "sort", order: sort.value }));
  panel.addEventListener("keydown", (event) => {
    const clears = event.target === find && event.key === "Escape" && find.value;
    if (large.dialog.open || clears || !passes(event)) { // else "r" would make the cell raw
      event.stopPropagation();
      return;
    }
    panel.removeAttribute(SUPPRESS); // for JupyterLab, which looks at the key after this
    setTimeout(() => panel.setAttribute(SUPPRESS, "true"));
  });

  model.on("change:version", () => { headline(); draw(); });
  model.on("change:lists", () => { chosen.clear(); anchor = null; find.value = ""; showChosen(); });
  model.on("change:marks", marks);
  model.on("change:n_marks", marks);
  for (const name of ["heading", "page", "n_pages", "count", "order"]) model.on(`change:${name}`, headline);
  const say = () => {
    line.textContent = model.get("said");
    problem.textContent = model.get("problem");
  };
  model.on("change:said", say);
  model.on("change:problem", say);
  say();
  headline();
  draw();
  return () => {
    clearTimeout(timer);
    large.end();
    while (urls.length) URL.revokeObjectURL(urls.pop());
  };
}

export default { render };
