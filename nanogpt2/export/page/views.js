// What the page shows: tokens in a row, bars, a square of attention. Each is made once and then
// only changed, so that dragging a control keeps up with the screen.
globalThis.nanogpt2 ??= {};

nanogpt2.views = () => {
  // An element with attributes and children; `on...` attributes are listeners.
  function make(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes))
      if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else if (value === true) element.setAttribute(key, "");
      else if (value !== false && value != null) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  // A token as a reader sees it: blanks have a sign of their own.
  const visible = (piece) => piece.replaceAll("\n", "↵").replaceAll("\t", "⇥") || "∅";
  const spoken = (piece) => (piece.trim() ? `“${piece.trim()}”` : piece.includes("\n") ? "line end" : "blank");
  const percent = (p) => (p >= 0.0995 ? `${(100 * p).toFixed(0)} %` : p >= 0.001 ? `${(100 * p).toFixed(1)} %` : "< 0.1 %");

  let lists = 0;

  // Tokens of a text, each shaded by a number from 0 to 1; one is chosen, by pointer or by arrows.
  function tokenRow(label, choose) {
    const mine = `ng-row-${++lists}`;
    const box = make("div", { class: "ng-row", role: "listbox", tabindex: 0, "aria-label": label });
    let chosen = -1, byKey = false;
    const pick = (at) => at >= 0 && at < box.children.length && at !== chosen && choose(at);
    const keys = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    box.addEventListener("keydown", (event) => {
      byKey = true; // then the page may scroll: focus stays on the row
      if (event.key === "Home") pick(0);
      else if (event.key === "End") pick(box.children.length - 1);
      else if (keys[event.key]) pick(chosen + keys[event.key]);
      else return (byKey = false);
      byKey = false;
      event.preventDefault();
    });
    box.addEventListener("click", (event) => pick([...box.children].indexOf(event.target)));
    return {
      box,
      // pieces of text, their shades, and what a screen reader says of each
      show(pieces, shades, words) {
        while (box.children.length > pieces.length) box.lastChild.remove();
        pieces.forEach((piece, i) => {
          let token = box.children[i];
          if (!token) box.append((token = make("span", { role: "option", id: `${mine}-${i}` })));
          if (token.textContent !== visible(piece)) token.textContent = visible(piece);
          token.style.setProperty("--heat", Number.isFinite(shades[i]) ? shades[i].toFixed(3) : 0);
          token.setAttribute("aria-label", `${spoken(piece)}, ${words[i]}`);
          token.title = words[i];
        });
      },
      mark(at) {
        box.children[chosen]?.setAttribute("aria-selected", "false");
        chosen = at;
        box.children[at]?.setAttribute("aria-selected", "true");
        if (at < 0) box.removeAttribute("aria-activedescendant");
        else box.setAttribute("aria-activedescendant", `${mine}-${at}`);
        if (byKey) box.children[at]?.scrollIntoView({ block: "nearest" });
      },
    };
  }

  // A list of tokens with a bar each.
  function bars(label, count) {
    const rows = Array.from({ length: count }, () => {
      const name = make("code"), bar = make("i"), value = make("span");
      return { name, bar, value, row: make("li", {}, name, make("b", { "aria-hidden": "true" }, bar), value) };
    });
    const box = make("ol", { class: "ng-bars", "aria-label": label }, ...rows.map(({ row }) => row));
    return {
      box,
      // entries: { piece, p, of (the length of the bar, by default p), off }
      show(entries) {
        rows.forEach(({ name, bar, value, row }, i) => {
          const entry = entries[i];
          row.hidden = !entry;
          if (!entry) return;
          name.textContent = visible(entry.piece);
          bar.style.transform = `scaleX(${entry.of ?? entry.p})`;
          value.textContent = entry.off ? "not drawn" : percent(entry.p);
          row.classList.toggle("ng-off", Boolean(entry.off));
        });
      },
    };
  }

  // A range input with its name and its value in words.
  function slider(name, { min, max, step, value, words = String }, changed) {
    const output = make("output");
    const input = make("input", { type: "range", min, max, step, value, autocomplete: "off" });
    const say = () => {
      output.textContent = words(+input.value);
      input.setAttribute("aria-valuetext", output.textContent);
    };
    input.addEventListener("input", () => {
      say();
      changed(+input.value);
    });
    say();
    return { box: make("label", { class: "ng-control" }, make("span", {}, name), input, output), input, say };
  }

  // Attention of one head as a square: a query a line, a key a column, what a window hides left out.
  function square(label, follow) {
    const canvas = make("canvas", { class: "ng-square", role: "img", "aria-label": label });
    let size = 0;
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return Math.min(size - 1, Math.floor(((event.clientY - box.top) / box.height) * size));
    };
    canvas.addEventListener("pointermove", (event) => size && follow(at(event)));
    return {
      canvas,
      // weights (T, T) of one head: a dot each, its strength the root of the weight; the chosen
      // token's line in a colour of its own, what the window hides left empty
      show(weights, T, window, chosen) {
        size = T;
        if (canvas.width !== T) canvas.width = canvas.height = T;
        const pen = canvas.getContext("2d"), style = getComputedStyle(canvas);
        const colour = (name) => {
          pen.fillStyle = style.getPropertyValue(name);
          return [1, 3, 5].map((i) => parseInt(pen.fillStyle.slice(i, i + 2), 16));
        };
        const cold = colour("--ng-c0"), hot = colour("--ng-c1"), image = pen.createImageData(T, T);
        for (let t = 0; t < T; t++) {
          const ink = t === chosen ? hot : cold;
          for (let s = Math.max(0, t - window); s <= t; s++) {
            const at = 4 * (t * T + s);
            image.data.set(ink, at);
            image.data[at + 3] = 30 + 225 * Math.sqrt(weights[t * T + s]);
          }
        }
        pen.putImageData(image, 0, 0);
      },
    };
  }

  return { make, visible, spoken, percent, tokenRow, bars, slider, square };
};
