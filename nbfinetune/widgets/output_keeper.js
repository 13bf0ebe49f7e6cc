// A page drops what a cell displays if it did not see it start, as after a reload; it gets the
// widgets. So this one, without a view, writes into the notebook what it lacks.
const VIEW = "application/vnd.jupyter.widget-view+json";

function codeCells(notebook) {
  const cells = Array.from({ length: notebook.cells.length }, (_, i) => notebook.cells.get(i));
  return cells.filter((cell) => cell.type === "code");
}

function outputsOf(cell) {
  return Array.from({ length: cell.outputs.length }, (_, i) => cell.outputs.get(i).data ?? {});
}

function holds(cell, bundle) {
  return outputsOf(cell).some((data) => Object.keys(bundle).every((key) => data[key] === bundle[key]));
}

function asOutput(data) {
  return { output_type: "display_data", data, metadata: {} };
}

function keep(model, notebook, seenToStart) {
  const id = model.get("screen");
  const cells = codeCells(notebook);
  const cell = cells.find((each) => each.id === model.get("cell"));
  if (!cell) return;
  const [instead, below] = [model.get("instead"), model.get("below")];
  const count = model.get("count");
  if (!seenToStart && (!cell.trusted || (cell.executionCount && cell.executionCount < count))) {
    cell.outputs.clear(); // what was saved before this execution, which cleared it too
    cell.executionCount = null;
    cell.trusted = true; // as JupyterLab does with what it executes
  }
  let shown = false;
  for (const each of cells) {
    outputsOf(each).forEach((data, i) => {
      if (data[VIEW]?.model_id !== id) return;
      shown = true;
      if (Object.keys(instead).length) each.outputs.set(i, asOutput(instead));
    });
  }
  const first = Object.keys(instead).length ? instead : {
    "text/plain": model.get("words"), [VIEW]: { version_major: 2, version_minor: 0, model_id: id },
  };
  if (!shown && !holds(cell, first)) cell.outputs.add(asOutput(first));
  if (Object.keys(below).length && !holds(cell, below)) cell.outputs.add(asOutput(below));
  if (model.get("ended") && !seenToStart) cell.executionCount = count;
}

function initialize({ model }) {
  // JupyterLab and Notebook 7 have the document here.
  const context = model.widget_manager?.context;
  const notebook = context?.model;
  if (!notebook?.cells) {
    model.send({ event: "elsewhere" });
    return;
  }
  const seenToStart = context.sessionContext.session?.kernel?.clientId === model.get("client");
  const id = model.get("screen");
  const isShown = (cell) => outputsOf(cell).some((data) => data[VIEW]?.model_id === id);
  if (seenToStart && !codeCells(notebook).some(isShown)) {
    model.send({ event: "elsewhere" }); // in a console or captured
    return;
  }
  const update = () => {
    keep(model, notebook, seenToStart);
    if (model.get("ended")) model.send({ event: "done" });
  };
  model.send({ event: "known" });
  model.on("change:ended", update);
  if (!seenToStart) update();
}

export default { initialize };
