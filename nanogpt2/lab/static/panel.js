// Opens an experiment of panels.js, once the reader has predicted its outcome and asks for it.
wire("panel", (box) => {
  const open = box.querySelector("button");
  const said = box.querySelector(".ng-said");
  const bar = box.querySelector("progress");
  const stage = box.querySelector(".ng-play");
  const { panel, megabytes } = box.dataset;
  const choices = JSON.parse(box.dataset.choices);
  const here = "../_static/play/";

  function add(name) {
    return new Promise((resolve, reject) => {
      const tag = document.createElement("script");
      tag.src = `${here}${name}.js`;
      tag.onload = resolve;
      tag.onerror = () => reject(new Error(`${tag.src} could not be read`));
      document.head.append(tag);
    });
  }

  // The engine and its look, once a page.
  async function scripts() {
    const look = document.createElement("link");
    Object.assign(look, { rel: "stylesheet", href: `${here}play.css` });
    document.head.append(look);
    const names = ["tensors", "tokenizer", "sampling", "model", "session", "worker", "engine", "views", "panels"];
    for (const name of names) await add(name);
  }

  function draw() {
    const choice = kept(box);
    if (!stage.hidden) return;
    open.disabled = !choice;
    said.textContent = choice ? "" : "Commit to an answer first; then the model can be asked.";
  }

  async function start() {
    open.disabled = true;
    try {
      await (window.nanogpt2Panels ??= scripts());
      bar.hidden = false;
      const engine = await nanogpt2.open("../_static/model");
      if (panel !== "tokens") await engine.load("final", (part) => { bar.value = part; });
      stage.hidden = false;
      const answer = await nanogpt2.panels()[panel](engine, stage);
      const mine = kept(box);
      said.textContent = `Measured: ${choices[answer]}. ` + (!mine ? ""
        : mine.index === answer ? "You predicted this." : `You predicted: ${mine.text}.`);
      open.parentNode.hidden = true;
      stage.focus({ preventScroll: true }); // the button that had it is gone
    } catch (error) {
      window.nanogpt2Panels = undefined;
      stage.hidden = true;
      said.textContent = `The model did not come: ${error.message}`;
      open.disabled = false;
    }
    bar.hidden = true;
  }

  if (!/^[\d.]+$/.test(megabytes)) {
    open.parentNode.hidden = true;
    said.textContent = megabytes ? "The model computes in the pages of the built book; here is only its question."
      : "This copy of the book was built without its model, so there is nothing to measure here.";
    return;
  }
  open.textContent = panel === "tokens" ? "Load the tokenizer (0.1 MB)" : `Load the model (${megabytes} MB)`;
  document.addEventListener("ng-choice", ({ detail }) => {
    if (detail.key !== box.dataset.key) return;
    box.memory = detail.value; // where the browser keeps nothing
    draw();
  });
  open.addEventListener("click", start);
  draw();
});
