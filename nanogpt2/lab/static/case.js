wire("case", (box) => {
  const all = (name) => Array.from(box.querySelectorAll(name));
  const one = (name) => box.querySelector(name);
  const radios = all("input");
  const buttons = all(".ng-buy");
  const results = all("template.ng-result");
  const right = +box.dataset.answer;
  const chosen = () => radios.findIndex((radio) => radio.checked);

  function draw() {
    const file = kept(box); // first and last diagnosis, what was bought, whether closed
    const closed = file !== null && file.closed;
    radios.forEach((radio, i) => {
      if (file) radio.checked = i === file.index;
      radio.disabled = closed;
      radio.parentNode.classList.toggle("ng-right", closed && i === right);
      radio.parentNode.classList.toggle("ng-wrong", closed && i === file.index && i !== right);
    });
    const bought = file ? file.bought : [];
    const spent = bought.reduce((sum, i) => sum + +buttons[i].dataset.price, 0);
    buttons.forEach((button, i) => { button.disabled = closed || bought.includes(i); });
    one(".ng-commit").hidden = file !== null;
    one(".ng-commit").disabled = chosen() < 0;
    one(".ng-shop").hidden = file === null;
    one(".ng-close").hidden = closed;
    one(".ng-again").hidden = !closed;
    one(".ng-bought").replaceChildren(...bought.map((i) => results[i].content.cloneNode(true)));
    one(".ng-spent").textContent = `Spent: ${spent} minutes.`;
    one(".ng-verdict").replaceChildren();
    if (!closed) return;
    const said = document.createElement("p");
    const was = (i) => (i === right ? "right" : "wrong");
    said.textContent = `Your first diagnosis was ${was(file.first)}, your last is ${was(file.index)}.`;
    one(".ng-verdict").append(said, one("template.ng-cause").content.cloneNode(true));
  }

  function change(more) {
    keep(box, { ...kept(box), index: chosen(), ...more });
    draw();
  }

  radios.forEach((radio) => radio.addEventListener("change", () => {
    if (kept(box)) change({});
    else draw();
  }));
  one(".ng-commit").addEventListener("click", () => {
    if (chosen() >= 0) change({ first: chosen(), bought: [], closed: false });
    buttons[0].focus();
  });
  buttons.forEach((button, i) => button.addEventListener("click", () => {
    change({ bought: [...kept(box).bought, i] });
  }));
  one(".ng-close").addEventListener("click", () => {
    change({ closed: true });
    one(".ng-again").focus();
  });
  one(".ng-again").addEventListener("click", () => {
    radios.forEach((radio) => { radio.checked = false; });
    keep(box, null);
    draw();
    radios[0].focus();
  });
  draw();
});
