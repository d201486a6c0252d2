// The reader's choice, kept in this browser where it allows that, else while the page is open.
function kept(box) {
  try {
    return JSON.parse(localStorage.getItem(box.dataset.key)) || box.memory || null;
  } catch (refused) {
    return box.memory || null;
  }
}

function keep(box, choice) {
  const key = box.dataset.key;
  box.memory = choice;
  try {
    if (choice) localStorage.setItem(key, JSON.stringify(choice));
    else localStorage.removeItem(key);
  } catch (refused) {
    // the memory above is what is left
  }
  document.dispatchEvent(new CustomEvent("ng-choice", { detail: { key: key, value: choice } }));
}
