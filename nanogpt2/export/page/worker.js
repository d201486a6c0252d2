// What the worker answers. Each call names an operation; its result goes back under the same number.
globalThis.nanogpt2 ??= {};

nanogpt2.worker = ({ unpack, inflate, singularValues, Tokenizer, Model, Session }) => {
  let tokenizer, config;
  const sessions = {};
  const session = (name) => {
    if (!sessions[name]) throw new Error(`the weights ${name} are not loaded`);
    return sessions[name];
  };

  const operations = {
    start(card) {
      config = card.config;
      tokenizer = new Tokenizer(card.tokenizer);
    },
    async load({ set, texts, index, floats }) {
      sessions[set] = new Session(new Model(config, unpack(await inflate(texts), index, floats)));
    },
    tokens({ text }) {
      const ids = tokenizer.encode(text);
      return { ids, pieces: ids.map((id) => tokenizer.show(id)), bytes: ids.map((id) => tokenizer.lengthOf(id)) };
    },
    read({ set, ids, change, want = [], top = 5 }) {
      const one = session(set);
      one.read(ids, change);
      const found = { ...one.scores(ids, top), logits: one.logits(ids.length - 1).slice() };
      if (want.includes("logits")) found.all = ids.map((_, t) => one.logits(t).slice());
      const inner = want.filter((name) => name !== "logits");
      return inner.length ? { ...found, ...one.look(ids, change, inner) } : found;
    },
    next({ set, ids, change }) {
      const one = session(set);
      one.read(ids, change);
      return one.logits(ids.length - 1).slice();
    },
    lens({ set, ids, at, change, top }) {
      return session(set).lens(ids, at, change, top);
    },
    names({ set }) {
      const { weights } = session(set).model;
      return Object.keys(weights).map((name) => ({ name, rows: weights[name].rows ?? 1, cols: weights[name].cols ?? weights[name].length }));
    },
    matrix({ set, name }) {
      const found = session(set).model.weights[name];
      return found.floats ? { rows: found.rows, cols: found.cols, data: found.floats() } : { rows: 1, cols: found.length, data: found.slice() };
    },
    singularValues({ set, name }) {
      return singularValues(session(set).model.weights[name]);
    },
  };

  onmessage = async ({ data: { id, call, options } }) => {
    try {
      postMessage({ id, result: await operations[call](options) });
    } catch (error) {
      postMessage({ id, error: error.message });
    }
  };
};
