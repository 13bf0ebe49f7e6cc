// Thumbnails in pages, each to enlarge and to mark. Names are untrusted: textContent, never HTML.
function add(parent, tag, properties = {}, text = "") {
  const node = document.createElement(tag);
  Object.assign(node, properties);
  if (text) node.textContent = text;
  parent.appendChild(node);
  return node;
}

// Keys that JupyterLab keeps: running the cell, and leaving the panel.
const passes = (event) => event.key === "Escape" || (event.key === "Enter" && (event.shiftKey || event.ctrlKey));

function render({ model, el }) {
  const panel = add(el, "section", { className: "nbft-image-panel", hidden: true });
  panel.setAttribute("aria-label", "pictures of the selected cell");
  const head = add(panel, "div", { className: "nbft-image-panel-head" });
  const title = add(head, "h4");
  title.setAttribute("aria-live", "polite");
  const previous = add(head, "button", { className: "nbft-previous" }, "Previous page");
  const where = add(head, "span");
  const next = add(head, "button", { className: "nbft-next" }, "Next page");
  const undo = add(head, "button", { className: "nbft-undo" }, "Undo mark");
  const line = add(panel, "div");
  line.setAttribute("role", "status");
  const problem = add(panel, "div", { className: "nbft-problem" });
  problem.setAttribute("role", "alert");
  const grid = add(panel, "div", { className: "nbft-thumbs" });
  const dialog = add(panel, "dialog", { className: "nbft-large" });
  const large = add(dialog, "img");
  const missing = add(dialog, "p", { className: "nbft-problem" });
  const caption = add(dialog, "p");
  const close = add(dialog, "button", {}, "Close");
  const urls = [];

  const url = (view) => {
    const made = URL.createObjectURL(new Blob([view], { type: "image/jpeg" }));
    urls.push(made);
    return made;
  };
  // All classes of 36 pictures would be thousands of options: they come when a list is opened.
  const offer = (select, classes) => {
    const chosen = select.value;
    const first = select.options[0]?.textContent ?? "mark \u2026";
    select.replaceChildren();
    add(select, "option", { value: "" }, first);
    add(select, "option", { value: "fine" }, "fine");
    add(select, "option", { value: "remove" }, "remove");
    const group = add(select, "optgroup", { label: "relabel as" });
    for (const name of classes) add(group, "option", { value: `relabel:${name}` }, name);
    select.value = chosen || "";
  };
  const fill = (select, t) => {
    if (select.dataset.full) return;
    const others = model.get("vocab").filter((name) => name !== t.actual && !t.top.includes(name));
    offer(select, [...t.top, ...others]);
    select.dataset.full = "yes";
  };

  const figure = (t) => {
    const node = add(grid, "figure", { className: "nbft-thumb" });
    node.dataset.item = t.item;
    node.title = t.words;
    const open = add(node, "button", { className: "nbft-open" });
    open.setAttribute("aria-label", `enlarge ${t.words}`);
    if (t.jpeg) add(open, "img", { src: url(t.jpeg), alt: t.words });
    else add(open, "span", { className: "nbft-missing" }, t.problem);
    const row = (text, number) => {
      const part = add(node, "div");
      add(part, "span", {}, text);
      add(part, "span", { className: "nbft-number" }, number);
    };
    row(`predicted ${t.predicted}`, t.p_predicted);
    row(`actual ${t.actual}`, t.p_actual);
    row("loss", t.loss);
    add(add(node, "div"), "span", { className: "nbft-file" }, t.file);
    const select = add(node, "select");
    select.setAttribute("aria-label", `mark ${t.file}`);
    offer(select, t.top);
    for (const event of ["pointerdown", "focus"]) select.addEventListener(event, () => fill(select, t));
    const mark = () => {
      const [action, label = ""] = select.value.split(/:(.*)/s);
      if (action) model.send({ event: "mark", item: t.item, action, label });
      select.value = "";
    };
    // On a closed list each key changes the value: only Enter makes it a mark.
    let byKey = false;
    select.addEventListener("pointerdown", () => { byKey = false; });
    select.addEventListener("keydown", (event) => {
      byKey = true;
      if (event.key === "Enter" && select.value) { event.preventDefault(); mark(); }
    });
    select.addEventListener("change", () => {
      if (!byKey) mark();
      else if (select.value) line.textContent = `Enter marks it: ${select.selectedOptions[0].textContent}`;
    });
    select.addEventListener("blur", () => { select.value = ""; });
    open.addEventListener("click", () => {
      caption.textContent = t.words;
      large.alt = t.words;
      large.removeAttribute("src");
      missing.textContent = "";
      dialog.dataset.item = t.item;
      dialog.showModal();
      model.send({ event: "enlarge", item: t.item });
    });
  };

  const draw = () => {
    while (urls.length) URL.revokeObjectURL(urls.pop());
    grid.replaceChildren();
    model.get("thumbs").forEach(figure);
    marks();
    panel.hidden = !model.get("heading");
    panel.dataset.drawn = String(Number(panel.dataset.drawn ?? 0) + 1);
  };
  const marks = () => {
    const texts = model.get("marks");
    [...grid.children].forEach((node, k) => {
      node.dataset.mark = texts[k] ?? "";
      node.querySelector("select").options[0].textContent = texts[k] || "mark \u2026";
    });
    enable(undo, model.get("n_marks") > 0);
  };
  // Not `disabled` nor hidden: that would take the focus away.
  const enable = (button, yes) => button.setAttribute("aria-disabled", String(!yes));
  const headline = () => {
    const [page, pages] = [model.get("page"), model.get("n_pages")];
    title.textContent = model.get("heading");
    where.textContent = pages > 1 ? `page ${page + 1} of ${pages}` : "";
    previous.hidden = next.hidden = pages < 2;
    enable(previous, page > 0);
    enable(next, page < pages - 1);
  };
  const on = (button, message) => button.addEventListener("click", () => {
    if (button.getAttribute("aria-disabled") !== "true") model.send(message());
  });

  on(previous, () => ({ event: "page", page: model.get("page") - 1 }));
  on(next, () => ({ event: "page", page: model.get("page") + 1 }));
  on(undo, () => ({ event: "undo" }));
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => model.send({ event: "enlarge", item: -1 }));
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  panel.addEventListener("keydown", (event) => {
    if (dialog.open || !passes(event)) event.stopPropagation(); // else "r" would make the cell raw
  });

  model.on("change:large", () => {
    const { item, jpeg, problem: why } = model.get("large");
    if (!dialog.open || dialog.dataset.item !== String(item)) return; // another was opened meanwhile
    if (jpeg) large.src = url(jpeg);
    missing.textContent = why;
  });
  model.on("change:version", () => { headline(); draw(); });
  model.on("change:marks", marks);
  model.on("change:n_marks", marks);
  for (const name of ["heading", "page", "n_pages"]) model.on(`change:${name}`, headline);
  model.on("change:said", () => { line.textContent = model.get("said"); });
  model.on("change:problem", () => { problem.textContent = model.get("problem"); });
  headline();
  draw();
  return () => { while (urls.length) URL.revokeObjectURL(urls.pop()); };
}

export default { render };
