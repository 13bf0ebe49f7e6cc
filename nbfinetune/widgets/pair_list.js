// A list of confused pairs, for the mouse and the keyboard. Names are untrusted: textContent only.
const PAGE = 14; // pairs that are listed at once: none is behind a scroll bar
const MOVES = { ArrowDown: 1, ArrowUp: -1, PageDown: PAGE, PageUp: -PAGE, Home: -Infinity, End: Infinity };
const QUIET = 150; // ms: of the pairs that a held key runs through only the last is opened
const HINT = "Choose a pair, by mouse or with the arrow keys: its pictures open here";

function render({ model, el }) {
  const box = add(el, "div", "nbft-choice");
  const list = add(box, "div", "nbft-pairs");
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "pairs");
  list.tabIndex = 0;
  const bar = add(box, "div", "nbft-pairs-bar");
  const previous = add(bar, "button", "nbft-button", "Previous pairs");
  const where = add(bar, "span", "");
  const next = add(bar, "button", "nbft-button", "Next pairs");
  for (const node of [list, bar]) node.setAttribute("data-lm-suppress-shortcuts", "true");
  const place = panelPlace(el, HINT);
  const name = `nbft-pair-${Math.random().toString(36).slice(2)}`;
  const rows = model.get("rows");
  let at = model.get("value");
  let first = 0; // of the page
  let timer;

  const row = (texts, className) => {
    const node = add(list, "div", className);
    for (const text of texts) add(node, "span", "", text).title = text.length > 24 ? text : "";
    return node;
  };
  const draw = () => {
    list.replaceChildren();
    row(["actual", "predicted", "times", "of the actual class"], "nbft-pairs-head").setAttribute("role", "presentation");
    list.removeAttribute("aria-activedescendant");
    rows.slice(first, first + PAGE).forEach((texts, k) => {
      const node = row(texts, "");
      node.id = `${name}-${first + k}`;
      node.setAttribute("role", "option");
      node.setAttribute("aria-label", `actual ${texts[0]}, predicted ${texts[1]}: ${texts[2]}`);
      node.setAttribute("aria-selected", String(first + k === at));
      node.addEventListener("click", () => choose(first + k, 0));
      if (first + k === at) list.setAttribute("aria-activedescendant", node.id);
    });
    where.textContent = `${first + 1} to ${Math.min(first + PAGE, rows.length)} of ${rows.length}`;
    bar.hidden = rows.length <= PAGE;
    previous.setAttribute("aria-disabled", String(first === 0));
    next.setAttribute("aria-disabled", String(first + PAGE >= rows.length));
  };
  const mark = (k) => {
    at = k;
    if (at >= 0) first = at - (at % PAGE);
    draw();
  };
  const choose = (k, wait) => {
    mark(k);
    const [actual, predicted, times] = rows[k];
    const pictures = times === "1" ? "1 picture" : `${times} pictures`;
    const asked = place.open(`${pictures} of actual ${actual}, predicted ${predicted}`);
    clearTimeout(timer);
    timer = setTimeout(() => model.send({ event: "pair", pair: k, asked }), wait);
  };
  const turn = (button, by) => button.addEventListener("click", () => {
    if (button.getAttribute("aria-disabled") === "true") return;
    first += by;
    draw();
  });
  turn(previous, -PAGE);
  turn(next, PAGE);
  bar.addEventListener("keydown", (event) => { if (!passes(event)) event.stopPropagation(); });
  list.addEventListener("keydown", (event) => {
    if (passes(event)) return;
    event.stopPropagation(); // else "m" would turn the cell into text, and "d d" delete it
    const opens = event.key === "Enter" || event.key === " ";
    if (!opens && !(event.key in MOVES)) return;
    event.preventDefault();
    if (opens) choose(Math.max(0, at), 0);
    else choose(Math.min(rows.length - 1, Math.max(0, at + MOVES[event.key])), QUIET);
  });
  model.on("change:value", () => mark(model.get("value")));
  model.on("change:answered", () => place.answered(model.get("answered")));
  mark(at);
  // On the page its surroundings are known.
  const sizes = new ResizeObserver(() => {
    const split = place.split();
    if (!split?.clientWidth) return;
    sizes.observe(split);
    split.toggleAttribute("data-beside", split.clientWidth - list.offsetWidth - GAP >= BESIDE[1]);
  });
  sizes.observe(list);
  return () => { sizes.disconnect(); clearTimeout(timer); place.close(); };
}

export default { render };
