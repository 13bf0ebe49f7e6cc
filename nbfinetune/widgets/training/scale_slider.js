// A slider over powers of ten, with a name and a value that screen readers speak.
function render({ model, el }) {
  el.innerHTML =
    '<label class="nbft-scale">LR times <input type="range" step="0.05"> <output></output></label>';
  // JupyterLab would take the arrow keys to go to another cell.
  el.setAttribute("data-lm-suppress-shortcuts", "true");
  el.addEventListener("keydown", (event) => {
    if (event.key === "Escape") el.closest(".jp-Cell")?.focus({ preventScroll: true });
    event.stopPropagation();
  });
  const input = el.querySelector("input");
  const output = el.querySelector("output");
  input.min = Math.log10(model.get("min"));
  input.max = Math.log10(model.get("max"));
  input.setAttribute("aria-label", "factor on the learning rate");
  const show = () => {
    const text = model.get("value").toFixed(2);
    input.value = Math.log10(model.get("value"));
    input.setAttribute("aria-valuetext", text);
    output.textContent = text;
  };
  input.addEventListener("input", () => {
    model.set("value", 10 ** Number(input.value));
    model.save_changes();
  });
  model.on("change:value", show);
  show();
  return () => model.off("change:value", show);
}

export default { render };
