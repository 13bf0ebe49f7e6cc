// A vertical marker over a plot with a logarithmic axis: dragged, or moved with the keys.
const KEYS = { // decades
  ArrowRight: 0.05, ArrowUp: 0.05, ArrowLeft: -0.05, ArrowDown: -0.05, PageUp: 0.5, PageDown: -0.5,
};

function render({ model, el }) {
  el.classList.add("nbft-lr-overlay");
  const handle = document.createElement("div");
  handle.className = "nbft-lr-handle";
  handle.tabIndex = 0;
  handle.setAttribute("role", "slider");
  handle.setAttribute("aria-label", "learning rate of the next run");
  handle.innerHTML = '<i class="nbft-line"></i><i class="nbft-knob"></i><span></span>';
  const label = handle.querySelector("span");
  el.appendChild(handle);

  const ends = () => [Math.log10(model.get("min")), Math.log10(model.get("max"))];
  const plot = () => {
    const box = el.getBoundingClientRect();
    const { left, right } = model.get("margin");
    return { x: box.left + left, width: box.width - left - right };
  };
  const set = (exponent) => {
    const [low, high] = ends();
    model.set("value", 10 ** Math.min(high, Math.max(low, exponent)));
    model.save_changes();
  };
  const place = () => {
    const [low, high] = ends();
    const { top, bottom, left } = model.get("margin");
    const value = model.get("value");
    const share = (Math.log10(value) - low) / (high - low);
    const text = value.toExponential(1);
    handle.style.left = `${left + share * plot().width}px`;
    handle.style.top = `${top}px`;
    handle.style.bottom = `${bottom}px`;
    handle.style.display = model.get("shown") ? "" : "none";
    handle.classList.toggle("nbft-flipped", share > 0.85);
    label.textContent = text;
    for (const [name, number] of [["min", 10 ** low], ["max", 10 ** high], ["now", value]]) {
      handle.setAttribute(`aria-value${name}`, number.toFixed(12)); // not 1e-7, which axe refuses
    }
    handle.setAttribute("aria-valuetext", text);
  };

  handle.addEventListener("pointerdown", (event) => {
    handle.setPointerCapture(event.pointerId);
    handle.focus();
    event.preventDefault();
    event.stopPropagation();
  });
  handle.addEventListener("pointermove", (event) => {
    if (!handle.hasPointerCapture(event.pointerId)) return;
    const [low, high] = ends();
    const { x, width } = plot();
    set(low + ((event.clientX - x) / width) * (high - low));
  });
  handle.addEventListener("keydown", (event) => {
    const [low, high] = ends();
    if (event.key === "Home") set(low);
    else if (event.key === "End") set(high);
    else if (event.key in KEYS) set(Math.log10(model.get("value")) + KEYS[event.key]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  for (const name of ["value", "min", "max", "margin", "shown"]) model.on(`change:${name}`, place);
  const resized = new ResizeObserver(place);
  resized.observe(el);
  place();
  return () => resized.disconnect();
}

export default { render };
