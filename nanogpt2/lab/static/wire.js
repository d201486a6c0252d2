// Starts each part of a kind once, however often its script stands on the page.
function wire(kind, start) {
  document.querySelectorAll(`.ng-${kind}:not([data-wired])`).forEach((box) => {
    box.setAttribute("data-wired", "");
    start(box);
  });
}
