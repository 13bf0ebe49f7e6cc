// A picture from a file, a drop or the clipboard, and bars of what it most probably is; with
// pictures.js before it in one module. The picture is shown from the page: nothing is uploaded but
// to the kernel.
const MOST = 8e6; // bytes: servers close the connection at 10 MiB a message
const SUPPRESS = "data-lm-suppress-shortcuts";

function render({ model, el }) {
  const panel = add(el, "section", { className: "nbft-demo-panel", tabIndex: 0 });
  panel.setAttribute("aria-label", `${model.get("title")}; paste a picture here`);
  panel.setAttribute(SUPPRESS, "true"); // else Ctrl+V would paste a cell
  add(panel, "h4", {}, model.get("title"));
  const tools = add(panel, "div", { className: "nbft-demo-take" });
  const input = add(tools, "input", { type: "file", accept: "image/*", hidden: true });
  addButton(tools, "Choose a picture", () => input.click());
  add(tools, "span", {}, "or drop one here, or paste it (Ctrl+V)");
  const seen = add(panel, "div", { className: "nbft-demo-seen", hidden: true });
  const figure = add(seen, "figure");
  const image = add(figure, "img");
  const caption = add(figure, "figcaption");
  const list = add(seen, "ol", { className: "nbft-bars" });
  list.setAttribute("aria-label", "the most probable classes");
  const problem = add(panel, "div", { className: "nbft-problem" });
  problem.setAttribute("role", "alert");
  let asked = 0; // number of the picture that this view sent
  let url = "";

  const say = (text) => { problem.textContent = text; };
  const forget = () => { if (url) URL.revokeObjectURL(url); url = ""; };
  const take = async (file) => {
    if (!file) { say("there is no picture in that"); return; }
    const name = file.name || "picture";
    if (file.size > MOST) {
      say(`${name} has ${(file.size / 1e6).toFixed(1)} MB, and a page sends 8 at most; learn.predict(FILE) takes it`);
      return;
    }
    const content = await file.arrayBuffer();
    forget();
    url = URL.createObjectURL(file);
    image.hidden = false;
    image.src = url;
    image.alt = `the picture ${name}`;
    caption.textContent = `${name} \u2026`;
    list.replaceChildren();
    say("");
    seen.hidden = false;
    asked = Date.now() + Math.random();
    model.send({ event: "picture", n: asked, name }, undefined, [content]);
  };
  const pictureIn = (files) => [...(files ?? [])].find((file) => file.type.startsWith("image/")) ?? files?.[0];

  image.addEventListener("error", () => { image.hidden = true; }); // TIFF, say: the kernel reads it
  input.addEventListener("change", () => {
    if (input.files.length) take(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });
  panel.addEventListener("paste", (event) => {
    event.preventDefault();
    event.stopPropagation();
    take(pictureIn(event.clipboardData?.files));
  });
  const over = (yes) => { panel.dataset.over = yes ? "yes" : ""; };
  panel.addEventListener("dragover", (event) => { event.preventDefault(); event.stopPropagation(); over(true); });
  panel.addEventListener("dragleave", () => over(false));
  panel.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    over(false);
    take(pictureIn(event.dataTransfer?.files));
  });
  panel.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" && !(event.key === "Enter" && (event.shiftKey || event.ctrlKey))) event.stopPropagation();
  });

  const show = () => {
    const { n, name, classes, problem: why } = model.get("answer");
    if (!name || (asked && n !== asked)) return; // an older picture's
    if (n !== asked) image.hidden = true; // another view has the picture
    seen.hidden = false;
    caption.textContent = name;
    say(why);
    list.replaceChildren();
    for (const [label, p] of classes) {
      const row = add(list, "li");
      addName(row, label);
      const bar = add(row, "span", { className: "nbft-bar" });
      bar.setAttribute("aria-hidden", "true");
      add(bar, "span").style.width = `${(100 * p).toFixed(1)}%`;
      add(row, "span", { className: "nbft-p" }, p.toFixed(2));
    }
    if (classes.length) image.alt = `${name}, most probably ${classes[0][0]} (${classes[0][1].toFixed(2)})`;
  };
  model.on("change:answer", show);
  show();
  return () => { model.off("change:answer", show); forget(); };
}

export default { render };
