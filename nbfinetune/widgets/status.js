// Text that screen readers speak when it changes, and a sign that a front end is there.
const QUIET = 700; // ms: while a marker is dragged only the last of many texts is spoken

function render({ model, el }) {
  const line = document.createElement("div");
  line.className = "nbft-status";
  const spoken = document.createElement("div");
  spoken.className = "nbft-spoken";
  spoken.setAttribute("role", "status");
  el.append(line, spoken);
  let timer;
  const show = () => {
    line.textContent = model.get("text");
    clearTimeout(timer);
    timer = setTimeout(() => { spoken.textContent = model.get("text"); }, QUIET);
  };
  model.on("change:text", show);
  show();
  model.send({ event: "rendered" });
  let cell;
  requestAnimationFrame(() => { cell = el.closest(".jp-Cell"); });
  // A screen that becomes a picture takes its focused button away: the keyboard stays at the cell.
  return () => {
    clearTimeout(timer);
    setTimeout(() => {
      if (document.activeElement === document.body) cell?.focus({ preventScroll: true });
    });
  };
}

export default { render };
