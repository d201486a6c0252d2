wire("table", (box) => {
  const heads = [...box.querySelectorAll("thead th")];
  if (!box.querySelector("thead button")) return;
  const body = box.querySelector("tbody");
  const first = [...body.rows];
  const text = (row, column) => row.cells[column].textContent.trim();

  // numbers by size, words by the alphabet, empty cells always last
  function order(a, b, column, sign) {
    const [x, y] = [text(a, column), text(b, column)];
    if (!x || !y) return (x ? 0 : 1) - (y ? 0 : 1);
    const [n, m] = [parseFloat(x), parseFloat(y)];
    const both = Number.isFinite(n) && Number.isFinite(m) && n !== m;
    return sign * (both ? n - m : x.localeCompare(y, "en", { numeric: true }));
  }

  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      body.append(...[...first].sort((a, b) => order(a, b, column, sign)));
    });
  });
});
