// Where the pictures of a choice open: beside it or under it, in view, and announced at once.
const BESIDE = [470, 320]; // px: room for three pictures in a row, or at least two
const GAP = 16; // px between the two, as in panel_place.css
const SLOW = 2000; // ms after which one wonders

// Keys that JupyterLab keeps: running the cell, leaving the choice, and moving on.
const passes = (event) => ["Escape", "Tab"].includes(event.key) || (event.key === "Enter" && (event.shiftKey || event.ctrlKey));

function add(parent, tag, className, text = "") {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  parent.appendChild(node);
  return node;
}

function panelPlace(el, hint) {
  el.classList.add("nbft-chooser");
  const place = document.createElement("div");
  place.className = "nbft-place";
  place.setAttribute("role", "status");
  place.textContent = hint;
  const sight = document.createElement("div");
  sight.className = "nbft-sight";
  el.append(place, sight);
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let asked = 0;
  let timer;

  const split = () => el.closest(".nbft-split");
  const reveal = (node) => node.scrollIntoView({
    block: "nearest", inline: "nearest", behavior: still.matches ? "auto" : "smooth",
  });
  return {
    split,
    // Says what opens; gives the number that the answer must bear.
    open(what) {
      asked = Math.random();
      const text = `opening ${what} \u2026`;
      place.textContent = text;
      if (split()) split().dataset.opening = "";
      reveal(place);
      clearTimeout(timer);
      timer = setTimeout(() => { place.textContent = `${text} the kernel is busy`; }, SLOW);
      return asked;
    },
    answered(number) {
      if (number !== asked) return;
      clearTimeout(timer);
      place.textContent = "";
      delete split()?.dataset.opening;
      requestAnimationFrame(() => { // with the pictures that came just now
        const first = split()?.querySelector(".nbft-thumb");
        const top = sight.getBoundingClientRect().top;
        if (first) sight.style.height = `${first.getBoundingClientRect().bottom - top}px`;
        reveal(sight);
      });
    },
    close: () => clearTimeout(timer),
  };
}

