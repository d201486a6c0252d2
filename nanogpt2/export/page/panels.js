// The chapters' experiments on the page's model. Each is called with the engine and a box to fill,
// runs the experiment of its question and gives the answer's place among the choices; then the
// reader's own changes follow. nanogpt2/lab/panel.py puts them into chapters.
globalThis.nanogpt2 ??= {};

nanogpt2.panels = () => {
  const { make, tokenRow, slider } = nanogpt2.views();
  const HOT = 10; // bits by which a token is coloured through
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  const bitsOf = (found) => mean([...found.bits].slice(1));
  const among = (value, ...steps) => steps.filter((step) => value >= step).length;
  const largest = (lists) => {
    let most = 0;
    for (const list of lists) for (const x of list) if (Math.abs(x) > most) most = Math.abs(x);
    return most; // NaN is never more
  };

  const field = (label, input) => make("label", { class: "ng-text" }, label, input);
  const area = (text, changed) => {
    const input = make("textarea", { rows: 3, spellcheck: "false", oninput: changed });
    input.value = text;
    return input;
  };
  const select = (name, options, changed) => {
    const input = make("select", { onchange: changed },
      ...options.map(([words], at) => make("option", { value: at }, words)));
    return { box: make("label", { class: "ng-control" }, make("span", {}, name), input), input, options };
  };
  const dial = (name, options, start, changed) => {
    const made = slider(name, { min: 0, max: options.length - 1, step: 1, value: start, words: (at) => options[at][0] }, changed);
    return { ...made, options };
  };

  // Runs what the reader asks for, the latest wish first, and says what went wrong.
  function lately(say) {
    let next = null, running = null;
    return (task) => {
      next = task;
      running ??= (async () => {
        try {
          while (next) {
            const now = next;
            next = null;
            await now();
          }
        } catch (error) {
          say(error.message);
        } finally {
          running = null;
        }
      })();
      return running;
    };
  }

  // A text, read as trained and as changed: each token coloured by the bits that the change costs.
  // spec: text, why, want, knobs(changed, names) -> [knob], change(values, ids) -> change,
  // tell(found, trained, ids, values) -> a sentence, first(ask) -> the answer's place.
  const reading = (spec) => async (engine, box) => {
    const status = make("p", { role: "status" });
    const say = (text) => { status.textContent = text; };
    const row = tokenRow("Tokens by what the change costs", (at) => { row.mark(at); say(words[at]); });
    const soon = lately(say);
    const changed = () => soon(update);
    const names = (await engine.names()).map(({ name }) => name);
    const knobs = spec.knobs(changed, names);
    const text = area(spec.text, changed);
    let words = [];
    box.replaceChildren(make("p", {}, spec.why), field("The text", text),
      make("div", { class: "ng-controls" }, ...knobs.map((knob) => knob.box)), row.box, status);

    let known = {}; // the text as trained: read once, however often a knob turns
    async function asTrained(ids) {
      const key = ids.join();
      if (known.key !== key) known = { key, found: await engine.read(ids, { want: spec.want }) };
      return known.found;
    }
    const tokens = async (text) => [engine.bos, ...(await engine.tokens(text)).ids].slice(0, engine.config.sequence_len);
    const valueOf = ({ input, options }) => (options ? options[+input.value][1] : input.value);
    async function update() {
      const ids = await tokens(text.value);
      if (ids.length < 2) return say("Write something.");
      const values = knobs.map(valueOf), change = await spec.change(values, engine), trained = await asTrained(ids);
      const found = await engine.read(ids, { change, want: spec.want });
      const cost = Array.from(found.bits, (bits, t) => (t ? bits - trained.bits[t] : 0));
      const pieces = ids.map((id) => engine.tokenizer.show(id));
      words = pieces.map((piece, t) => (t ? `“${piece}”: ${found.bits[t].toFixed(1)} bits, ${trained.bits[t].toFixed(1)} as trained` : "where the text begins"));
      row.show(pieces, cost.map((bits) => Math.min(1, Math.max(0, bits / HOT))), words);
      say(`${bitsOf(trained).toFixed(2)} bits a token as trained, ${bitsOf(found).toFixed(2)} so changed. `
        + (spec.tell?.(found, trained, ids, values) ?? ""));
    }

    const ids = await tokens(spec.text);
    const ask = (change) => (change ? engine.read(ids, { change, want: spec.want }) : asTrained(ids));
    const answer = await spec.first(ask, ids, engine);
    await changed();
    return answer;
  };

  // The longest end of a text that stood in it before: how many tokens it has.
  function again(ids) {
    let most = 0;
    for (let end = ids.length - 1; end > 0; end--) {
      let same = 0;
      while (same < end && ids[end - 1 - same] === ids[ids.length - 1 - same]) same++;
      most = Math.max(most, same);
    }
    return most;
  }
  // Bits of all but the first token of that end: how a name goes on, once it has begun.
  const spelling = (found, ids) => {
    const bits = [...found.bits].slice(ids.length - again(ids) + 1);
    return bits.reduce((a, b) => a + b, 0);
  };

  const STORY = "Captain Zebulon Thrale walked along the river in the evening. The water was quiet, and the lamps of "
    + "the town were lit one after another. A boat came down from the bridge, and the men in it were singing an old "
    + "song. It had rained all day, and the road was dark. There was a light in the window of the inn, and a fire in "
    + "the hall. The people at the table spoke of the weather, of the price of corn, and of the war that had ended in "
    + "the spring. \"Good evening,\" said the landlord, \"you must be Captain Zebulon Thrale";
  const HISTORY = "In the year 1848 the people of the city rose against the king. The army was called from the north, "
    + "and for three days there was fighting in the streets. In the end the king left the city, and the people chose a "
    + "new government.";

  const windows = reading({
    text: STORY,
    why: "Coloured is what the narrow windows forget. The text's end should repeat something: a name, a line.",
    knobs: (changed) => [dial("keys to the left, in every layer",
      [...[1, 2, 4, 8, 16, 32, 64, 128, 256].map((w) => [String(w), w]), ["as trained", null]], 5, changed)],
    change: ([width], { config }) => (width === null ? {} : { windows: Array(config.n_layer).fill(width) }),
    tell(found, trained, ids) {
      if (again(ids) < 2) return "Nothing at its end stood in the text before.";
      return `The repeated end, once begun: ${spelling(trained, ids).toFixed(1)} bits as trained, ${spelling(found, ids).toFixed(1)} so changed.`;
    },
    async first(ask, ids, { config }) {
      const trained = await ask(), narrow = await ask({ windows: Array(config.n_layer).fill(32) });
      return among(spelling(narrow, ids) / spelling(trained, ids), 1.5, 3);
    },
  });

  const norms = reading({
    text: HISTORY,
    want: ["scores", "attention"],
    why: "Coloured is what the change costs. Scores stand before the softmax; it turns them into weights.",
    knobs: (changed) => [
      select("QK-norm", [["off", false], ["on, as trained", true]], changed),
      dial("scale of queries and keys", [0.25, 0.5, 0.75, 1, 1.2, 1.5, 2, 3].map((s) => [`${s}`, s]), 3, changed)],
    change: ([qk_norm, qk_scale]) => ({ qk_norm, qk_scale }),
    tell(found, trained, ids) {
      const T = ids.length;
      const top = ({ attention }) => mean(attention.flatMap((a) =>
        Array.from({ length: a.length / T }, (_, at) => (at % T < 8 ? [] : [a.subarray(at * T, at * T + T).reduce((x, y) => Math.max(x, y))])).flat()));
      return `Largest score: ${largest(trained.scores).toFixed(1)} as trained, ${largest(found.scores).toFixed(1)} so changed. `
        + `The key that gets most has on average ${(100 * top(trained)).toFixed(0)} % of a query's weight, then ${(100 * top(found)).toFixed(0)} %.`;
    },
    async first(ask) {
      const trained = await ask(), off = await ask({ qk_norm: false });
      return among(largest(off.scores) / largest(trained.scores), 1.5, 10);
    },
  });

  const softcap = reading({
    text: HISTORY,
    want: ["logits"],
    why: "Coloured is what the change costs.",
    knobs: (changed) => [dial("softcap of the logits", [...[2, 5, 10, 15, 20, 30, 60].map((c) => [`${c}`, c]), ["none", 0]], 7, changed)],
    change: ([logit_softcap]) => ({ logit_softcap }),
    tell: (found, trained) => `Largest logit: ${largest(trained.all).toFixed(1)} as trained, ${largest(found.all).toFixed(1)} so changed.`,
    async first(ask) {
      return among(bitsOf(await ask({ logit_softcap: 0 })) / bitsOf(await ask()), 0.99, 1.01);
    },
  });

  const rotary = reading({
    text: HISTORY,
    why: "Coloured is what the change costs. Turn one thing at a time, then two.",
    knobs: (changed) => [
      dial("shift", [0, 1, 10, 100, 1000, 10000].map((s) => [s.toLocaleString("en"), s]), 4, changed),
      dial("stretch", [0, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4].map((s) => [`${s} times`, s]), 4, changed),
      select("a pair", [["i and i + D/2, as trained", "halves"], ["2 i and 2 i + 1", "neighbours"]], changed)],
    change: ([shift, stretch, pairing]) => ({ rope: { shift, stretch, pairing } }),
    async first(ask) {
      const cost = [];
      for (const rope of [{ shift: 1000 }, { stretch: 4 }, { pairing: "neighbours" }]) cost.push(bitsOf(await ask({ rope })));
      return cost.indexOf(Math.min(...cost));
    },
  });

  const FACTORS = [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3].map((s) => [s === 1 ? "as trained" : `${s} times`, s]);
  const values = reading({
    text: HISTORY,
    why: "Coloured is what the change costs. Two words that change places give each other's rows of every value table.",
    knobs(changed, names) {
      const words = (name) => {
        const input = make("input", { type: "text", size: 8, oninput: changed });
        return { box: make("label", { class: "ng-control" }, make("span", {}, name), input), input };
      };
      const tables = names.flatMap((name) => name.match(/value_embeds\.(\d+)\./)?.[1] ?? []).map(Number);
      const layers = [["none", []], ...tables.map((i) => [`layer ${i + 1}'s`, [i]]), ["all", tables]];
      return [dial("value gates", FACTORS, 4, changed), dial("x0, the way back", FACTORS, 0, changed),
        select("empty tables", layers, changed), words("swap the rows of"), words("and")];
    },
    async change([value_gate, x0_scale, empty_values, one, other], engine) {
      const first = async (word) => (await engine.tokens(` ${word.trim()}`)).ids[0];
      const swap_values = one.trim() && other.trim() ? [[await first(one), await first(other)]] : [];
      return { value_gate, x0_scale, empty_values, swap_values };
    },
    async first(ask) {
      const [gates, back] = [bitsOf(await ask({ value_gate: 0 })), bitsOf(await ask({ x0_scale: 0 }))];
      const trained = bitsOf(await ask()), ratio = (gates - trained) / (back - trained);
      return ratio > 1.25 ? 0 : ratio < 0.8 ? 1 : 2;
    },
  });

  async function tokens(engine, box) {
    const status = make("p", { role: "status" }), soon = lately((text) => { status.textContent = text; });
    const row = tokenRow("Tokens of the text", (at) => { row.mark(at); status.textContent = words[at]; });
    let words = [];
    const text = area("The government of the people. Zebulon Thrale. 3.14159265358979 naïve 🙂", () => soon(update));
    async function update() {
      const { ids, pieces, bytes } = await engine.tokens(text.value);
      words = ids.map((id, i) => `token ${id}, ${bytes[i]} byte${bytes[i] > 1 ? "s" : ""}`);
      row.show(pieces, ids.map((_, i) => (i % 2 ? 0.55 : 0.2)), words);
      const sum = bytes.reduce((a, b) => a + b, 0);
      status.textContent = ids.length ? `${ids.length} tokens for ${sum} bytes: ${(sum / ids.length).toFixed(2)} bytes a token.` : "Write something.";
    }
    box.replaceChildren(field("Any text", text), row.box, status);
    const counts = [];
    for (const text of ["The government of the people", "Zebulon Thrale", "3.14159265358979"]) counts.push((await engine.tokens(text)).ids.length);
    await soon(update);
    return counts.indexOf(Math.max(...counts));
  }

  // Mean bits of the tokens of `end` after `start`, each token with its own; whether all are first guesses.
  async function scored(engine, start, end) {
    const before = [engine.bos, ...(await engine.tokens(start)).ids], { ids } = await engine.tokens(end);
    const found = await engine.read([...before, ...ids]), bits = [...found.bits].slice(before.length);
    return { pieces: ids.map((id) => engine.tokenizer.show(id)), bits, mean: mean(bits),
      exact: [...found.rank].slice(before.length).every((rank) => rank === 0) };
  }

  const KINDS = {
    "multiple choice": { start: ["In the year 1861 the people of the United States fought a"], ends: [" war", " banana"],
      words: ["One beginning", "Options, one a line: the end with the fewest bits a token is its answer"] },
    schema: { start: ["The king was old, and the queen was young. The king", "The king was old, and the queen was young. The queen"],
      ends: [" was very old and tired"], words: ["Beginnings, one a line: the one after which the end costs least is its answer", "One end"] },
    "exact text": { start: ["The people of the United States of"], ends: [" America"],
      words: ["One beginning", "The end: every token must be its first guess"] },
  };
  async function core(engine, box) {
    const status = make("p", { role: "status" }), soon = lately((text) => { status.textContent = text; });
    const rows = make("div"), changed = () => soon(update);
    const kind = select("kind", Object.keys(KINDS).map((name) => [name, name]), () => { fill(); changed(); });
    const start = area("", changed), end = area("", changed), labels = [make("span"), make("span")];
    const chosen = () => KINDS[kind.options[+kind.input.value][1]];
    function fill() {
      [start.value, end.value] = [chosen().start.join("\n"), chosen().ends.join("\n")];
      labels.forEach((label, i) => { label.textContent = chosen().words[i]; });
    }
    async function update() {
      const lines = (input) => input.value.split("\n").filter((line) => line.trim());
      const pairs = lines(start).flatMap((a) => lines(end).map((b) => [a, b.startsWith(" ") ? b : ` ${b}`])), all = [];
      if (!pairs.length) return (status.textContent = "Write a beginning and an end.");
      for (const [a, b] of pairs) all.push(await scored(engine, a, b));
      rows.replaceChildren(...all.map(({ pieces, bits, mean }, i) => {
        const row = tokenRow(`Ending ${i + 1}`, (at) => row.mark(at));
        row.show(pieces, bits.map((b) => Math.min(1, b / HOT)), bits.map((b) => `${b.toFixed(1)} bits`));
        return make("div", {}, row.box, `${mean.toFixed(2)} bits a token (${bits.map((b) => b.toFixed(1)).join(", ")})`);
      }));
      const best = all.reduce((at, one, i) => (one.mean < all[at].mean ? i : at), 0);
      status.textContent = chosen() === KINDS["exact text"] ? (all[0].exact ? "Right: every token was its first guess." : "Wrong: some token was not its first guess.")
        : `Its answer is line ${best + 1}, with ${all[best].mean.toFixed(2)} bits a token.`;
    }
    fill();
    box.replaceChildren(make("div", { class: "ng-controls" }, kind.box), make("label", { class: "ng-text" }, labels[0], start),
      make("label", { class: "ng-text" }, labels[1], end), rows, status);
    await changed();
    const item = KINDS["multiple choice"], [war, banana] = [await scored(engine, item.start[0], item.ends[0]), await scored(engine, item.start[0], item.ends[1])];
    return war.mean < banana.mean ? 0 : 1;
  }

  // How many of the largest hold nine tenths of the sum of squares.
  function directions(values) {
    const all = values.reduce((sum, s) => sum + s * s, 0);
    let sum = 0, count = 0;
    while (sum < 0.9 * all) sum += values[count++] ** 2;
    return count;
  }
  async function muon(engine, box) {
    const status = make("p", { role: "status" }), soon = lately((text) => { status.textContent = text; });
    const names = (await engine.names()).filter(({ name, rows, cols }) => /^transformer\.h\..*(attn\.c_|mlp)/.test(name) && Math.min(rows, cols) > 32);
    const which = select("matrix", names.map(({ name }) => [name.replace("transformer.h.", "layer ").replace(".weight", ""), name]), () => soon(update));
    const picture = make("div", { class: "ng-curve" });
    async function update() {
      const { rows, cols, name } = names[+which.input.value], values = Array.from(await engine.singularValues(name)), n = values.length;
      const points = values.map((s, i) => `${((i / (n - 1)) * 300).toFixed(1)},${(100 - (s / values[0]) * 96).toFixed(1)}`).join(" ");
      picture.innerHTML = `<svg viewBox="-2 0 304 104" role="img" aria-label="singular values, largest first, falling from ${values[0].toFixed(2)} to ${values[n - 1].toFixed(3)}">`
        + `<polyline points="${points}" fill="none" stroke="var(--ng-c0)" stroke-width="2"/><path d="M0 0V100H300" fill="none" stroke="currentColor"/></svg>`;
      status.textContent = `${rows} x ${cols}: largest ${values[0].toFixed(2)}, middle ${values[n >> 1].toFixed(2)}, smallest ${values[n - 1].toFixed(3)}; `
        + `${directions(values)} of ${n} directions hold nine tenths of its squared length.`;
    }
    box.replaceChildren(make("div", { class: "ng-controls" }, which.box), picture, status);
    await soon(update);
    const shares = [];
    for (const { name } of names.filter(({ name }) => name.includes("c_q"))) {
      const values = Array.from(await engine.singularValues(name));
      shares.push(directions(values) / values.length);
    }
    return among(mean(shares), 0.1, 0.35);
  }

  return { windows, norms, softcap, rotary, values, tokens, core, muon };
};
