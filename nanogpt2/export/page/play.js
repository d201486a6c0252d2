// "Play with the model": a box of class ng-play becomes the page's tool. Nothing is loaded before
// the reader asks; nothing is stored or sent.
globalThis.nanogpt2 ??= {};

{
  const { make, visible, spoken, percent, tokenRow, bars, slider, square } = nanogpt2.views();
  const { candidates, largest, random, draw, softmax } = nanogpt2.sampling();
  const SHOWN = 12; // candidates in the list of what comes next
  const LOOKED = 384; // tokens whose attention is drawn
  const HOT = 12; // bits of surprise at which a token is coloured through
  const LETTERS = 40; // of a text that are read for each token of the context
  const EXAMPLE = "The state of the Union is strong. In the year 1848 the people of the city";

  const part = (title, why, ...children) =>
    make("section", {}, make("h2", {}, title), make("p", { class: "ng-why" }, why), ...children);

  // A table that may be wider than a phone: it scrolls, by keys too.
  const scroll = (name, table) => make("div", { class: "ng-scroll", role: "region", tabindex: 0, "aria-label": name }, table);

  class Play {
    constructor(box) {
      Object.assign(this, { box, set: "final", ids: [], chosen: -1, loaded: ["final"], asked: 0 });
      this.status = make("p", { class: "ng-status", role: "status" });
      this.button = make("button", { type: "button", onclick: (event) => this.open(event.detail === 0) }, box.dataset.megabytes ? `Load the model (${box.dataset.megabytes} MB)` : "Load the model");
      this.bar = make("progress", { max: 1, value: 0, "aria-label": "weights loaded", hidden: true });
      box.replaceChildren(this.button, this.bar, this.status);
    }

    say(text) {
      this.status.textContent = text;
    }

    // `byKey`: who pressed the button has its focus, and the button goes.
    async open(byKey = false) {
      this.button.disabled = true;
      try {
        this.engine = await nanogpt2.open(this.box.dataset.model);
        await this.load("final");
        this.draw();
        if (byKey) this.text.focus();
        await this.typed();
        this.say("The model is loaded.");
      } catch (error) {
        this.say(`It did not load: ${error.message}`);
        this.button.disabled = false;
      }
    }

    async load(set) {
      const size = this.engine.card.facts[set].megabytes;
      this.bar.hidden = false;
      await this.engine.load(set, (part) => {
        this.bar.value = part;
        this.say(`${(part * size).toFixed(1)} of ${size} MB`);
      });
      this.bar.hidden = true;
      this.say("");
    }

    draw() {
      const { card, config } = this.engine;
      this.text = make("textarea", { rows: 4, spellcheck: "false", oninput: () => this.typed() });
      this.text.value = EXAMPLE;
      this.row = tokenRow("Tokens by surprise", (at) => this.choose(at));
      this.total = make("p", { class: "ng-total" });
      this.detail = make("div", { class: "ng-detail" });
      this.guesses = bars("What the model expected at the chosen place", 5);
      this.detailText = make("p");
      this.detail.append(this.detailText, this.guesses.box);
      this.box.replaceChildren(
        make("p", { class: "ng-note" }, `${card.title}: ${card.parameters.toLocaleString("en")} parameters, `
          + `${config.n_layer} layers of ${config.n_head} heads, a context of ${config.sequence_len} tokens.`),
        make("label", { class: "ng-text" }, "Your text", this.text),
        this.bar, this.status,
        part("Surprise", "Each token is coloured by how many bits it took the model by surprise. Choose one, with "
          + "the pointer or the arrow keys, to see what was expected in its place.", this.row.box, this.total, this.detail),
        this.drawNext(), this.drawAttention(), this.drawLens(), this.drawTraining());
    }

    // What the text is now: read by the engine, the latest of many wishes first.
    typed() {
      this.stop();
      this.draws = random(+this.seed.value);
      return this.later(async () => {
        this.say("");
        const whole = this.text.value, most = this.engine.config.sequence_len;
        const { ids } = await this.engine.tokens(whole.slice(0, LETTERS * most));
        this.ids = [this.engine.bos, ...ids].slice(0, most);
        this.chosen = Math.min(this.ids.length - 1, this.chosen > 0 ? this.chosen : this.ids.length - 1);
        await this.read();
        if (ids.length + 1 > this.ids.length || whole.length > LETTERS * most)
          this.say(`The first ${this.ids.length - 1} tokens are read: the context is full.`);
      });
    }

    // Runs `task`; of those that come while one runs only the last is kept.
    async later(task) {
      this.next = task;
      if (this.running) return;
      this.running = true;
      try {
        while (this.next) {
          const now = this.next;
          this.next = null;
          await now();
        }
      } catch (error) {
        this.say(error.message);
      } finally {
        this.running = false;
      }
    }

    // As `later`, after what is waiting: a text that was typed is read before anything is added.
    afterwards(task) {
      const before = this.next;
      return this.later(async () => {
        await before?.();
        await task();
      });
    }

    async read() {
      const { engine, ids, set } = this;
      this.found = await engine.read(ids, { set });
      this.logits = this.found.logits;
      this.showTokens();
      this.bits[set] = { text: ids.join(), perByte: this.perByte }; // of the weights that read it
      this.showNext();
      this.showScores();
      if (!this.streaming) await this.look();
    }

    piece(id) {
      return this.engine.tokenizer.show(id);
    }

    showTokens() {
      const { ids, found } = this, bits = [...found.bits.slice(1)];
      const words = bits.map((b) => `${b.toFixed(1)} bits`);
      this.row.show(ids.slice(1).map((id) => this.piece(id)), bits.map((b) => Math.min(1, b / HOT)), words);
      this.row.mark(this.chosen - 1);
      const bytes = ids.reduce((sum, id) => sum + this.engine.tokenizer.lengthOf(id), 0);
      const sum = bits.reduce((a, b) => a + b, 0);
      this.perByte = bytes ? sum / bytes : NaN;
      this.total.textContent = bytes
        ? `${ids.length - 1} tokens, ${bytes} bytes: ${sum.toFixed(1)} bits, ${this.perByte.toFixed(3)} bits per byte.`
        : "Type something.";
      this.showChosen();
    }

    showChosen() {
      const { ids, chosen, found } = this;
      this.detail.hidden = chosen < 1;
      if (chosen < 1) return;
      const rank = found.rank[chosen];
      this.detailText.textContent = `${spoken(this.piece(ids[chosen]))}: ${found.bits[chosen].toFixed(1)} bits, `
        + `${rank === 0 ? "the likeliest of all tokens" : `${rank.toLocaleString("en")} tokens were likelier`}. Expected here:`;
      this.guesses.show(found.guesses[chosen].map(({ token, p }) => ({ piece: this.piece(token), p })));
    }

    choose(at) {
      this.chosen = at + 1;
      this.row.mark(at);
      this.showChosen();
      this.showAttention();
      if (!this.next) this.later(() => this.showLens()); // what waits ends with it anyway
    }

    // ---- what comes next

    drawNext() {
      const redraw = () => (this.frame ??= requestAnimationFrame(() => {
        this.frame = null;
        this.showNext();
      }));
      const whole = (value) => (value === 0 ? "all" : String(value));
      this.temperature = slider("temperature", { min: 0, max: 2, step: 0.05, value: 0.8, words: (v) => v.toFixed(2) }, redraw);
      this.topK = slider("top-k", { min: 0, max: 100, step: 1, value: 0, words: whole }, redraw);
      this.topP = slider("top-p", { min: 0.05, max: 1, step: 0.05, value: 1, words: (v) => v.toFixed(2) }, redraw);
      this.seed = make("input", { type: "number", min: 0, step: 1, value: 1, oninput: () => (this.draws = random(+this.seed.value)) });
      this.draws = random(1);
      this.list = bars("The likeliest next tokens", SHOWN);
      this.writing = make("button", { type: "button", onclick: () => (this.streaming ? this.stop() : this.stream()) }, "Stream");
      this.speed = make("span", { class: "ng-note" });
      this.kept = make("p", { class: "ng-note" });
      return part("What comes next", "The model gives every token a probability. Temperature sharpens or flattens them, top-k and "
        + "top-p leave the unlikely ones out; then one is drawn, with a chance that follows from the seed.",
        make("div", { class: "ng-controls" }, this.temperature.box, this.topK.box, this.topP.box,
          make("label", { class: "ng-control" }, make("span", {}, "seed"), this.seed)),
        this.list.box, this.kept,
        make("p", { class: "ng-buttons" }, make("button", { type: "button", onclick: () => this.step() }, "Step"), this.writing, this.speed));
    }

    get sampling() {
      return { temperature: +this.temperature.input.value, topK: +this.topK.input.value, topP: +this.topP.input.value };
    }

    showNext() {
      if (!this.logits) return;
      const asked = this.sampling, drawn = candidates(this.logits, asked);
      const chance = new Map(drawn.tokens.map((token, i) => [token, drawn.p[i]]));
      const all = softmax(this.logits, asked.temperature || 1);
      const most = largest(all, SHOWN);
      const longest = Math.max(...drawn.p);
      this.list.show(most.map((token) => {
        const p = chance.get(token) ?? all[token];
        return { piece: this.piece(token), p, of: Math.min(1, p / longest), off: !chance.has(token) };
      }));
      this.kept.textContent = `${drawn.tokens.length.toLocaleString("en")} of ${all.length.toLocaleString("en")} tokens can be drawn.`;
    }

    // Draws one token and reads on.
    async take() {
      const token = draw(candidates(this.logits, this.sampling), this.draws());
      if (token === this.engine.bos || this.ids.length >= this.engine.config.sequence_len) return false;
      this.ids.push(token);
      this.text.value = this.engine.tokenizer.decode(this.ids);
      this.chosen = this.ids.length - 1;
      await this.read();
      return true;
    }

    step() {
      return this.afterwards(async () => {
        this.say("");
        if (!(await this.take())) this.say("The text ends here: the document is over, or the context full.");
      });
    }

    stream() {
      this.writing.textContent = "Stop";
      this.streaming = true;
      return this.afterwards(async () => {
        this.say("");
        const start = performance.now();
        let count = 0;
        while (this.streaming && count < 200 && (await this.take()))
          this.speed.textContent = ` ${(++count / ((performance.now() - start) / 1000)).toFixed(0)} tokens a second`;
        this.stop();
        await this.look();
      });
    }

    stop() {
      this.streaming = false;
      this.writing.textContent = "Stream";
    }

    // ---- attention

    drawAttention() {
      const { n_layer: L, n_head: H } = this.engine.config;
      const redraw = () => (this.frame2 ??= requestAnimationFrame(() => {
        this.frame2 = null;
        this.showAttention();
      }));
      this.layer = slider("layer", { min: 1, max: L, step: 1, value: 1 }, redraw);
      this.head = slider("head", { min: 1, max: H, step: 1, value: 1 }, redraw);
      this.seen = tokenRow("Tokens by attention", (at) => this.choose(at));
      this.square = square("Attention of every token to those before it", (at) => at > 0 && at !== this.chosen && this.choose(at - 1));
      this.looking = make("p", { class: "ng-note", role: "status" });
      return part("Attention", "Where the chosen token looks, in one head of one layer. The square has a line for each token and a "
        + "column for each it may see: what is pale lies in the layer’s window, what is dark is looked at, the chosen token’s line is orange. Move over it to follow.",
        make("div", { class: "ng-controls" }, this.layer.box, this.head.box), this.seen.box, this.looking, this.square.canvas);
    }

    // Inner values of the text as it stands.
    async look() {
      const ids = this.ids.slice(0, LOOKED);
      this.inner = { ids, ...(await this.engine.read(ids, { set: this.set, want: ["attention"] })) };
      this.showAttention();
      await this.showLens();
    }

    showAttention() {
      if (!this.inner) return;
      const { ids, attention } = this.inner, T = ids.length, layer = +this.layer.input.value - 1, head = +this.head.input.value - 1;
      const at = Math.min(this.chosen, T - 1), window = this.engine.config.windows[layer];
      const weights = attention[layer].subarray(head * T * T, (head + 1) * T * T);
      const mine = weights.subarray(at * T, (at + 1) * T);
      const words = Array.from(mine, (w, s) => (s > at ? "after it" : at - s > window ? "outside the window" : percent(w)));
      this.seen.show(ids.slice(1).map((id) => this.piece(id)), Array.from(mine).slice(1).map(Math.sqrt), words.slice(1));
      this.seen.mark(at - 1);
      const most = largest(mine, 3).map((s) => `${s ? spoken(this.piece(ids[s])) : "the beginning"} ${percent(mine[s])}`);
      const reach = window >= this.engine.config.sequence_len ? "all before it" : `${window} before it`;
      this.looking.textContent = `${at ? spoken(this.piece(ids[at])) : "The beginning"} looks at ${most.join(", ")}. This layer sees ${reach}`
        + `; the beginning itself gets ${percent(mine[0])}.${this.ids.length > T ? ` Drawn for the first ${T} tokens.` : ""}`;
      this.square.show(weights, T, window, at);
    }

    // ---- layers

    drawLens() {
      this.lens = make("tbody");
      return part("What each layer would predict already", "The last norm and the head, put on the stream as it is after each "
        + "layer (the logit lens; nostalgebraist, 2020): what the model would say if it stopped there, after the chosen token.",
        scroll("What each layer predicts", make("table", {},
          make("thead", {}, make("tr", {}, ...["after", "likeliest", "second", "third", "the text’s own"].map((name) => make("th", { scope: "col" }, name)))), this.lens)));
    }

    async showLens() {
      const { ids, set } = this, at = this.chosen;
      const layers = await this.engine.lens(ids, at, { set, top: 3 });
      const cell = ({ token, p }) => make("td", {}, make("code", {}, visible(this.piece(token))), ` ${percent(p)}`);
      this.lens.replaceChildren(...layers.map(({ guesses, next }, i) => make("tr", {},
        make("th", { scope: "row" }, i ? `layer ${i}` : "embedding"), ...guesses.map(cell),
        next ? cell(next) : make("td", {}, "–"))));
    }

    // ---- training

    drawTraining() {
      const { card } = this.engine, steps = card.steps ?? {};
      this.sets = Object.keys(card.sets).sort((a, b) => steps[a] - steps[b]);
      this.scores = make("tbody");
      this.bits = {};
      const table = scroll("Bits per byte", make("table", {}, make("thead", {}, make("tr", {},
        ...["who reads", "bits per byte of your text", "of held-out text"].map((name) => make("th", { scope: "col" }, name)))), this.scores));
      const children = [table];
      if (this.sets.length > 1) {
        const words = (i) => `step ${steps[this.sets[i]].toLocaleString("en")}`;
        this.time = slider("training time", { min: 0, max: this.sets.length - 1, step: 1, value: this.sets.length - 1, words }, (i) => this.travel(this.sets[i]));
        this.fetching = make("button", { type: "button", hidden: true, onclick: (event) => this.fetch(event.detail === 0) });
        children.unshift(make("div", { class: "ng-controls" }, this.time.box), this.fetching);
      }
      if (card.bigram)
        children.push(make("button", { type: "button", onclick: (event) => this.fetchBigram(event.target, event.detail === 0) }, `Compare with counted pairs (${(card.bigram.bytes / 1e6).toFixed(1)} MB)`));
      return part("Through training", this.sets.length > 1
        ? "The same model earlier in its training. Move the slider: everything above is then said by that checkpoint."
        : "How well your text is predicted, beside the text that was held out of the training.", ...children);
    }

    travel(set) {
      this.wanted = set;
      const there = this.loaded.includes(set);
      this.fetching.hidden = there;
      this.fetching.textContent = `Load this checkpoint (${this.engine.card.facts[set].megabytes} MB)`;
      if (there) this.use(set);
    }

    async fetch(byKey = false) {
      const set = this.wanted;
      this.fetching.disabled = true;
      try {
        await this.load(set);
        this.loaded.push(set);
        if (this.wanted === set) this.travel(set);
        if (byKey) this.time.input.focus();
      } catch (error) {
        this.say(error.message);
      }
      this.fetching.disabled = false;
    }

    use(set) {
      this.stop();
      this.set = set;
      return this.afterwards(() => this.read());
    }

    async fetchBigram(button, byKey = false) {
      button.disabled = true;
      try {
        this.bigram = await this.engine.bigram();
        button.remove();
        this.showScores();
        if (byKey) this.scores.closest("[tabindex]").focus();
      } catch (error) {
        this.say(error.message);
        button.disabled = false;
      }
    }

    showScores() {
      const { card } = this.engine, text = this.ids.join();
      const row = (name, mine, held) => make("tr", {}, make("th", { scope: "row" }, name),
        make("td", {}, Number.isFinite(mine) ? mine.toFixed(3) : "–"), make("td", {}, held === undefined ? "not measured" : held.toFixed(3)));
      const rows = this.sets.filter((set) => this.loaded.includes(set)).map((set) => {
        const step = card.steps ? `step ${card.steps[set].toLocaleString("en")}` : "this model";
        return row(step, this.bits[set]?.text === text ? this.bits[set].perByte : undefined, card.facts[set].bpb_rounded);
      });
      if (this.bigram) {
        const bits = this.bigram.bits(this.ids).slice(1).reduce((a, b) => a + b, 0);
        const bytes = this.ids.reduce((sum, id) => sum + this.engine.tokenizer.lengthOf(id), 0);
        rows.unshift(row("counted pairs", bytes ? bits / bytes : NaN, card.bigram.bpb));
      }
      this.scores.replaceChildren(...rows);
    }
  }

  const start = () => document.querySelectorAll(".ng-play:not([data-wired])").forEach((box) => {
    box.setAttribute("data-wired", "");
    box.play = new Play(box);
  });
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
}
