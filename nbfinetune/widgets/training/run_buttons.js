// Pause, Stop, Finish now. The page answers in the same moment; the kernel's state comes when it can.
const ASKED = {
  pause: "pausing after this batch",
  resume: "going on",
  stop: "stopping after this batch",
  finish: "finishing: the rate falls to almost zero, then a last validation",
};
const ANSWERS = { pause: ["paused"], stop: ["stopping"], finish: ["finishing"], resume: [] };

function button(el, icon, text, title) {
  const node = document.createElement("button");
  node.type = "button";
  node.className = "nbft-button";
  node.title = title;
  const sign = node.appendChild(document.createElement("span"));
  sign.className = `nbft-icon nbft-icon-${icon}`;
  sign.setAttribute("aria-hidden", "true");
  node.appendChild(document.createElement("span")).textContent = text;
  el.appendChild(node);
  return node;
}

function render({ model, el }) {
  el.classList.add("nbft-run-buttons");
  el.setAttribute("data-lm-suppress-shortcuts", "true");
  const pause = button(el, "pause", "Pause", "Wait after the batch at hand");
  const stop = button(el, "stop", "Stop", "End after the batch at hand");
  const finish = button(el, "finish", "Finish now", "Let the rate fall, validate and end");
  if (!model.get("finishes")) finish.style.display = "none";
  const line = el.appendChild(document.createElement("span"));
  line.className = "nbft-run-state";
  line.setAttribute("role", "status");
  let asked = "";

  const show = () => {
    const state = model.get("state");
    if (state === "ended" || ANSWERS[asked]?.includes(state)) asked = "";
    const waits = asked === "pause" || (state === "paused" && !asked);
    pause.lastChild.textContent = waits ? "Resume" : "Pause";
    pause.firstChild.className = `nbft-icon nbft-icon-${waits ? "play" : "pause"}`;
    const ending = asked === "stop" || state === "stopping" || state === "ended";
    const finishing = asked === "finish" || state === "finishing";
    pause.disabled = ending;
    stop.disabled = ending;
    finish.disabled = ending || finishing;
    const text = asked ? ASKED[asked] : model.get("text");
    if (line.textContent !== text) line.textContent = text;
  };
  const ask = (what) => {
    asked = what;
    show();
    model.send({ request: what });
  };
  pause.addEventListener("click", () => ask(pause.textContent === "Resume" ? "resume" : "pause"));
  stop.addEventListener("click", () => ask("stop"));
  finish.addEventListener("click", () => ask("finish"));
  // Keys stay here but for Escape, which goes back to the cell.
  el.addEventListener("keydown", (event) => {
    if (event.key === "Escape") el.closest(".jp-Cell")?.focus({ preventScroll: true });
    event.stopPropagation();
  });
  const taken = (message) => {
    if (message.taken === "resume" && asked === "resume") asked = "";
    show();
  };
  model.on("msg:custom", taken);
  model.on("change:state", show);
  model.on("change:text", show);
  show();
  return () => {
    model.off("msg:custom", taken);
    model.off("change:state", show);
    model.off("change:text", show);
  };
}

export default { render };
