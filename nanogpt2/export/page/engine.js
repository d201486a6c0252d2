// The page's side of the engine: loads what is asked for, and asks the worker.
//
//   const engine = await nanogpt2.open("../_static/model");       the card and the tokenizer: 80 kB
//   await engine.load("final", (part) => ...);                    weights, with progress from 0 to 1
//   const { ids, pieces } = await engine.tokens("Once upon");     ids begin without <|bos|>
//   const { bits, guesses } = await engine.read([engine.bos, ...ids], { change, want });
//   for await (const { token, text } of engine.write(ids, { temperature, seed, most })) ...
//
// README.md beside this file says what can be changed and what can be asked for.
globalThis.nanogpt2 ??= {};

{
  const { Tokenizer } = nanogpt2.tokenizer();
  const { candidates, random, draw } = nanogpt2.sampling();
  const waiting = new Map(); // parts that a file of weights is to bring: name -> resolve
  const opened = new Map();

  // What files of weights call, and what card.js calls.
  nanogpt2.bring = (name, value) => waiting.get(name)?.(value);

  // Adds a script to the page: from a file, no other way of reading is allowed.
  function script(folder, name) {
    return new Promise((resolve, reject) => {
      const tag = document.createElement("script");
      const full = `${folder}/${name}`;
      waiting.set(name, (value) => {
        waiting.delete(name);
        tag.remove(); // and its megabytes with it
        resolve(value);
      });
      tag.src = `${full}.js`;
      const fail = (why) => {
        waiting.delete(name);
        tag.remove();
        reject(new Error(`${full}.js ${why}`));
      };
      tag.onerror = () => fail("could not be read; is the folder whole?");
      tag.onload = () => waiting.has(name) && fail("is damaged; copy the folder again"); // it brought nothing
      document.head.append(tag);
    });
  }

  // A worker without a file of its own, made of the engine's functions.
  function startWorker() {
    const parts = ["tensors", "tokenizer", "sampling", "model", "session", "worker"];
    const source = `const all = {};\n${parts.map((name) => `Object.assign(all, (${nanogpt2[name]})(all));`).join("\n")}`;
    const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    const worker = new Worker(address);
    URL.revokeObjectURL(address);
    return worker;
  }

  class Engine {
    constructor(folder, card) {
      Object.assign(this, { folder, card, config: card.config, calls: new Map(), count: 0, loads: new Map() });
      this.tokenizer = new Tokenizer(card.tokenizer);
      this.bos = this.tokenizer.bos;
      this.worker = startWorker();
      this.worker.onmessage = ({ data: { id, result, error } }) => {
        const { resolve, reject } = this.calls.get(id);
        this.calls.delete(id);
        if (error === undefined) resolve(result);
        else reject(new Error(error));
      };
      this.worker.onerror = (event) => {
        for (const { reject } of this.calls.values()) reject(new Error(event.message));
        this.calls.clear();
      };
    }

    ask(call, options, transfer = []) {
      return new Promise((resolve, reject) => {
        this.calls.set(++this.count, { resolve, reject });
        this.worker.postMessage({ id: this.count, call, options }, transfer);
      });
    }

    // Weights of that name, once; `progress` is told the part that has come.
    load(set = "final", progress = () => {}) {
      if (!this.loads.has(set)) {
        const loading = this.fetch(set, progress);
        this.loads.set(set, loading);
        loading.catch(() => this.loads.delete(set)); // it may be asked for again
      }
      return this.loads.get(set).then(() => progress(1));
    }

    async fetch(set, progress) {
      const { files, index, floats } = this.card.sets[set], texts = [];
      for (let i = 0; i < files; i++) {
        texts.push(await script(this.folder, `${set}.${i}`));
        progress((i + 1) / (files + 1));
      }
      await this.ask("load", { set, texts, index, floats });
    }

    // Counted pairs, the baseline; from the same folder, on request.
    async bigram() {
      const { Bigram } = nanogpt2.baseline();
      const bytes = await nanogpt2.tensors().inflate([await script(this.folder, "bigram")]);
      return new Bigram(bytes, this.config.vocab_size, this.card.bigram.pairs);
    }

    tokens(text) {
      return this.ask("tokens", { text });
    }

    read(ids, { set = "final", change = {}, want = [], top = 5 } = {}) {
      return this.ask("read", { set, ids, change, want, top });
    }

    // Logits (V) of what comes after `ids`.
    next(ids, { set = "final", change = {} } = {}) {
      return this.ask("next", { set, ids, change });
    }

    lens(ids, at, { set = "final", change = {}, top = 5 } = {}) {
      return this.ask("lens", { set, ids, at, change, top });
    }

    names(set = "final") {
      return this.ask("names", { set });
    }

    matrix(name, set = "final") {
      return this.ask("matrix", { set, name });
    }

    singularValues(name, set = "final") {
      return this.ask("singularValues", { set, name });
    }

    // Tokens one by one after `ids`, up to `most`, ended by <|bos|>. The text of a token is whole
    // characters: a part of one waits for the rest.
    async *write(ids, { most = 100, seed = 0, temperature = 0, topK = 0, topP = 1, set, change } = {}) {
      const chance = random(seed), decoder = new TextDecoder("utf-8", { ignoreBOM: true });
      const text = [...ids];
      for (let i = 0; i < most; i++) {
        const logits = await this.next(text, { set, change });
        const token = draw(candidates(logits, { temperature, topK, topP }), chance());
        if (token === this.bos) return;
        text.push(token);
        yield { token, logits, text: decoder.decode(this.tokenizer.raw([token]), { stream: true }) };
      }
    }

    close() {
      this.worker.terminate();
      for (const { reject } of this.calls.values()) reject(new Error("the engine was closed"));
      for (const [folder, engine] of opened) engine.then((one) => one === this && opened.delete(folder));
    }
  }

  // The engine of a folder of weights; every part of a page that asks gets the same one.
  nanogpt2.open = (folder) => {
    if (!opened.has(folder)) {
      const opening = script(folder, "card").then(async (card) => {
        const engine = new Engine(folder, card);
        await engine.ask("start", card);
        return engine;
      });
      opened.set(folder, opening);
      opening.catch(() => opened.delete(folder));
    }
    return opened.get(folder);
  };
}
