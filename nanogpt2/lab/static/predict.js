wire("predict", (box) => {
  const radios = Array.from(box.querySelectorAll("input"));
  const commit = box.querySelector(".ng-commit");
  const again = box.querySelector(".ng-again");
  const said = box.querySelector(".ng-said");

  function draw() {
    const choice = kept(box);
    const done = choice !== null && radios[choice.index] !== undefined;
    radios.forEach((radio, i) => {
      radio.disabled = done;
      if (done) radio.checked = i === choice.index;
    });
    commit.hidden = done;
    again.hidden = !done;
    commit.disabled = !radios.some((radio) => radio.checked);
    said.hidden = !done;
    said.textContent = done ? `Kept: ${choice.text}. The page measures it below.` : "";
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
