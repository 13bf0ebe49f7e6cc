// Thumbnails in pages, each to enlarge and to mark. Names are untrusted: textContent, never HTML.
function add(parent, tag, properties = {}, text = "") {
  const node = document.createElement(tag);
  Object.assign(node, properties);
  if (text) node.textContent = text;
  parent.appendChild(node);
  return node;
}

function render({ model, el }) {
  const drawer = add(el, "section", { className: "nbft-drawer", hidden: true });
  drawer.setAttribute("aria-label", "pictures of the selected cell");
  const head = add(drawer, "div", { className: "nbft-drawer-head" });
  const title = add(head, "h4");
  title.setAttribute("aria-live", "polite");
  const previous = add(head, "button", { className: "nbft-previous" }, "Previous page");
  const where = add(head, "span");
  const next = add(head, "button", { className: "nbft-next" }, "Next page");
  const undo = add(head, "button", { className: "nbft-undo" }, "Undo mark");
  const line = add(drawer, "div");
  line.setAttribute("role", "status");
  const problem = add(drawer, "div", { className: "nbft-problem" });
  problem.setAttribute("role", "alert");
  const grid = add(drawer, "div", { className: "nbft-thumbs" });
  const dialog = add(drawer, "dialog", { className: "nbft-large" });
  const large = add(dialog, "img");
  const caption = add(dialog, "p");
  const close = add(dialog, "button", {}, "Close");
  const urls = [];

  const url = (view) => {
    const made = URL.createObjectURL(new Blob([view], { type: "image/jpeg" }));
    urls.push(made);
    return made;
  };
  const words = (t) =>
    `${t.file}: actual ${t.actual} (${t.p_actual}), predicted ${t.predicted} (${t.p_predicted}), loss ${t.loss}`;

  // All classes of 36 pictures would be thousands of options: they come when a list is opened.
  const offer = (select, t, classes) => {
    const chosen = select.value;
    select.replaceChildren();
    add(select, "option", { value: "" }, t.mark || "mark \u2026");
    add(select, "option", { value: "fine" }, "fine");
    add(select, "option", { value: "remove" }, "remove");
    const group = add(select, "optgroup", { label: "relabel as" });
    for (const name of classes) add(group, "option", { value: `relabel:${name}` }, name);
    select.value = chosen || "";
  };
  const fill = (select, t) => {
    if (select.dataset.full) return;
    const others = model.get("vocab").filter((name) => name !== t.actual && !t.top.includes(name));
    offer(select, t, [...t.top, ...others]);
    select.dataset.full = "yes";
  };

  const figure = (t) => {
    const node = add(grid, "figure", { className: "nbft-thumb" });
    node.dataset.item = t.item;
    node.dataset.mark = t.mark;
    node.title = words(t);
    const open = add(node, "button", { className: "nbft-open" });
    open.setAttribute("aria-label", `enlarge ${words(t)}`);
    if (t.jpeg) add(open, "img", { src: url(t.jpeg), alt: words(t) });
    else add(open, "span", { className: "nbft-missing" }, t.problem);
    add(node, "div", {}, `predicted ${t.predicted} ${t.p_predicted}`);
    add(node, "div", {}, `actual ${t.actual} ${t.p_actual}`);
    add(node, "div", {}, `loss ${t.loss}`);
    add(node, "div", { className: "nbft-file" }, t.file);
    const select = add(node, "select");
    select.setAttribute("aria-label", `mark ${t.file}`);
    offer(select, t, t.top);
    for (const event of ["pointerdown", "focus"]) select.addEventListener(event, () => fill(select, t));
    select.addEventListener("change", () => {
      const [action, label = ""] = select.value.split(/:(.*)/s);
      if (action) model.send({ event: "mark", item: t.item, action, label });
      select.value = "";
    });
    open.addEventListener("click", () => {
      caption.textContent = words(t);
      large.alt = words(t);
      large.removeAttribute("src");
      dialog.showModal();
      model.send({ event: "enlarge", item: t.item });
    });
  };

  let shown = "";
  const draw = () => {
    const thumbs = model.get("thumbs");
    const now = JSON.stringify([model.get("heading"), thumbs.map((t) => t.item)]);
    if (now === shown) { // only marks have changed: what has the focus keeps it
      [...grid.children].forEach((node, k) => {
        node.dataset.mark = thumbs[k].mark;
        node.querySelector("select").options[0].textContent = thumbs[k].mark || "mark \u2026";
      });
      return;
    }
    shown = now;
    while (urls.length) URL.revokeObjectURL(urls.pop());
    grid.replaceChildren();
    thumbs.forEach(figure);
    drawer.hidden = !model.get("heading");
    drawer.dataset.drawn = String(Number(drawer.dataset.drawn ?? 0) + 1);
  };
  const headline = () => {
    const [page, pages] = [model.get("page"), model.get("n_pages")];
    title.textContent = model.get("heading");
    where.textContent = pages > 1 ? `page ${page + 1} of ${pages}` : "";
    previous.hidden = next.hidden = pages < 2;
    previous.disabled = page <= 0;
    next.disabled = page >= pages - 1;
    undo.hidden = !model.get("n_marks");
  };

  previous.addEventListener("click", () => model.send({ event: "page", page: model.get("page") - 1 }));
  next.addEventListener("click", () => model.send({ event: "page", page: model.get("page") + 1 }));
  undo.addEventListener("click", () => model.send({ event: "undo" }));
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => model.send({ event: "enlarge", item: -1 }));
  dialog.addEventListener("keydown", (event) => event.stopPropagation());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  model.on("change:large", () => { large.src = url(model.get("large").jpeg); });
  model.on("change:thumbs", draw);
  for (const name of ["heading", "page", "n_pages", "n_marks"]) model.on(`change:${name}`, headline);
  model.on("change:said", () => { line.textContent = model.get("said"); });
  model.on("change:problem", () => { problem.textContent = model.get("problem"); });
  draw();
  headline();
  return () => { while (urls.length) URL.revokeObjectURL(urls.pop()); };
}

export default { render };
