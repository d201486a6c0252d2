wire("reveal", (box) => {
  const said = box.querySelector(".ng-said");
  const after = box.querySelector(".ng-after");
  const open = box.querySelector("button");

  function draw(given) {
    const choice = given || kept(box);
    after.hidden = !choice;
    open.hidden = !!choice;
    if (!choice) said.textContent = "You have not committed to an answer yet.";
    else if (choice.index === +box.dataset.answer) said.textContent = "You predicted this.";
    else said.textContent = `You predicted: ${choice.text}.`;
  }

  document.addEventListener("ng-choice", (event) => {
    if (event.detail.key === box.dataset.key) draw(event.detail.value);
  });
  open.addEventListener("click", () => {
    after.hidden = false;
    open.hidden = true;
    said.textContent = "";
    after.tabIndex = -1; // the button that had the focus is gone
    after.focus();
  });
  draw();
});
