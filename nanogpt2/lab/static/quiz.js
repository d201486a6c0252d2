wire("quiz", (box) => {
  const radios = Array.from(box.querySelectorAll("input"));
  const said = box.querySelector(".ng-said");
  const whys = JSON.parse(box.dataset.whys);
  const right = +box.dataset.answer;

  box.querySelector("button").addEventListener("click", () => {
    const at = radios.findIndex((radio) => radio.checked);
    radios.forEach((radio, i) => {
      radio.parentNode.classList.toggle("ng-right", i === at && at === right);
      radio.parentNode.classList.toggle("ng-wrong", i === at && at !== right);
    });
    if (at < 0) {
      said.textContent = "Choose an answer first.";
      return;
    }
    const verdict = at === right ? "Right." : "Not this one.";
    said.innerHTML = `<strong>${verdict}</strong> ${whys[at]}`;
  });
});
