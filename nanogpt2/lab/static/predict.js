wire("predict", (box) => {
  const radios = Array.from(box.querySelectorAll("input"));
  const commit = box.querySelector(".ng-commit");
  const again = box.querySelector(".ng-again");
  const after = box.querySelector(".ng-after");
  const said = box.querySelector(".ng-said");
  const right = box.dataset.answer; // "" where the page measures it later

  function draw() {
    const choice = kept(box);
    const done = choice !== null && radios[choice.index] !== undefined;
    radios.forEach((radio, i) => {
      const mine = done && i === choice.index;
      const known = done && right !== "";
      radio.disabled = done;
      if (done) radio.checked = mine;
      radio.parentNode.classList.toggle("ng-right", known && i === +right);
      radio.parentNode.classList.toggle("ng-wrong", known && mine && i !== +right);
    });
    commit.hidden = done;
    again.hidden = !done;
    after.hidden = !done;
    commit.disabled = !radios.some((radio) => radio.checked);
    if (!done) return;
    if (right === "") said.textContent = `Kept: ${choice.text}. The page measures it below.`;
    else if (choice.index === +right) said.textContent = "You predicted this.";
    else said.textContent = `You predicted: ${choice.text}.`;
  }

  radios.forEach((radio) => radio.addEventListener("change", draw));
  commit.addEventListener("click", () => {
    const i = radios.findIndex((radio) => radio.checked);
    if (i < 0) return;
    keep(box, { index: i, text: JSON.parse(box.dataset.choices)[i] });
    draw();
    again.focus();
  });
  again.addEventListener("click", () => {
    radios.forEach((radio) => { radio.checked = false; });
    keep(box, null);
    draw();
    radios[0].focus();
  });
  draw();
});
