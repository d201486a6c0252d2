wire("explore", (box) => {
  const inputs = Array.from(box.querySelectorAll("input[type=range]"));
  const frames = box.querySelectorAll("template");
  const stage = box.querySelector(".ng-stage");
  const place = () => inputs.reduce((at, input) => at * (+input.max + 1) + +input.value, 0);
  let shown = place();

  function turn() {
    inputs.forEach((input) => {
      const words = JSON.parse(input.dataset.values)[+input.value];
      input.setAttribute("aria-valuetext", words);
      input.parentNode.querySelector("output").textContent = words;
    });
    const at = place();
    if (at === shown) return;
    shown = at;
    stage.replaceChildren(frames[at].content.cloneNode(true));
  }

  inputs.forEach((input) => input.addEventListener("input", turn));
  turn();
});
