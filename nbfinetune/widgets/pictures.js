// What the image panel and its enlarged view share. Names are untrusted: textContent, never HTML.
function add(parent, tag, properties = {}, text = "") {
  const node = document.createElement(tag);
  Object.assign(node, properties);
  if (text) node.textContent = text;
  parent.appendChild(node);
  return node;
}

// Not `disabled`: that would take the focus away.
const enable = (button, yes) => button.setAttribute("aria-disabled", String(!yes));

function addButton(parent, text, work, className = "") {
  const button = add(parent, "button", { type: "button", className: `nbft-button ${className}` }, text);
  button.addEventListener("click", (event) => {
    if (button.getAttribute("aria-disabled") !== "true") work(event);
  });
  return button;
}

// A name that may break where its words end, before it breaks anywhere.
function addName(parent, text, className = "") {
  const node = add(parent, "span", { className: `nbft-name ${className}` });
  for (const part of text.split(/(?<=[_\-./ ])/)) {
    node.append(part);
    add(node, "wbr");
  }
  return node;
}

// The list that marks: fine, remove, relabel as. All classes of 36 pictures would be thousands of
// options: they come when a list is opened.
function addMarkList(parent, { name, mark, say, likely = () => [], actual = () => null, vocab }) {
  const select = add(parent, "select", { className: "nbft-mark" });
  select.setAttribute("aria-label", name);
  let byKey = false;
  const offer = (classes) => {
    const first = select.options[0]?.textContent ?? "mark \u2026";
    select.replaceChildren();
    add(select, "option", { value: "" }, first);
    add(select, "option", { value: "fine" }, "fine");
    add(select, "option", { value: "remove" }, "remove");
    const group = add(select, "optgroup", { label: "relabel as" });
    for (const each of classes) add(group, "option", { value: `relabel:${each}` }, each);
    select.value = "";
  };
  const fill = () => {
    if (select.dataset.full) return;
    const top = likely();
    offer([...top, ...vocab().filter((each) => each !== actual() && !top.includes(each))]);
    select.dataset.full = "yes";
  };
  const commit = () => {
    const [action, label = ""] = select.value.split(/:(.*)/s);
    if (action) mark(action, label);
    select.value = "";
  };
  offer(likely());
  select.addEventListener("focus", fill);
  select.addEventListener("pointerdown", () => { byKey = false; fill(); });
  // On a closed list each key changes the value: only Enter makes it a mark.
  select.addEventListener("keydown", (event) => {
    byKey = true;
    if (event.key === "Enter" && select.value) { event.preventDefault(); commit(); }
  });
  select.addEventListener("change", () => {
    if (!byKey) commit();
    else if (select.value) say(`Enter marks it: ${select.selectedOptions[0].textContent}`);
  });
  select.addEventListener("blur", () => { select.value = ""; });
  select.renew = () => { delete select.dataset.full; offer(likely()); };
  select.title = name;
  select.called = (text) => { select.options[0].textContent = text; };
  return select;
}
