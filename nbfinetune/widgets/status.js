// Text that screen readers speak when it changes, and a sign that a front end is there.
function render({ model, el }) {
  const line = document.createElement("div");
  line.className = "nbft-status";
  line.setAttribute("role", "status");
  line.setAttribute("aria-live", "polite");
  const show = () => { line.textContent = model.get("text"); };
  model.on("change:text", show);
  el.appendChild(line);
  show();
  model.send({ event: "rendered" });
  let cell;
  requestAnimationFrame(() => { cell = el.closest(".jp-Cell"); });
  // A screen that becomes a picture takes its focused button away: the keyboard stays at the cell.
  return () => setTimeout(() => {
    if (document.activeElement === document.body) cell?.focus({ preventScroll: true });
  });
}

export default { render };
