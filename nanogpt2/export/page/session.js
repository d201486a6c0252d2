// A text as a model reads it: what was read stays read while the text grows. Runs in the worker.
globalThis.nanogpt2 ??= {};

nanogpt2.session = ({ Model, softmax, largest }) => {
  const LOG2E = Math.LOG2E;

  class Session {
    constructor(model) {
      this.model = model;
      this.reset({});
    }

    reset(change) {
      Object.assign(this, { change, told: JSON.stringify(change), cache: this.model.cache() });
      this.hidden = [];
      this.logitsAt = [];
    }

    // Reads `ids` from where they differ from the text before.
    read(ids, change = {}) {
      const { model } = this, { sequence_len: T, positions, n_embd: C } = model.config;
      if (positions === "learned" && ids.length > T)
        throw new Error(`the text has ${ids.length} tokens and the model has ${T} positions`);
      if (JSON.stringify(change) !== this.told) this.reset(change);
      let same = 0;
      while (same < ids.length && ids[same] === this.cache.tokens[same]) same++;
      this.cache.length = this.cache.tokens.length = same;
      this.hidden.length = this.logitsAt.length = same;
      for (let at = same; at < ids.length; at += 64) {
        const { hidden } = model.forward(ids.slice(at, at + 64), this.cache, { change });
        for (let t = 0; t < hidden.length; t += C) this.hidden.push(hidden.slice(t, t + C));
      }
    }

    // Logits (V) after token `t` of the text.
    logits(t) {
      return (this.logitsAt[t] ??= this.model.logits(this.hidden[t], { change: this.change }));
    }

    // For every token but the first: bits of surprise, its rank among all, the likeliest instead.
    scores(ids, top = 5) {
      const bits = new Float32Array(ids.length).fill(NaN), rank = new Int32Array(ids.length);
      const guesses = ids.map((id, t) => {
        if (t === 0) return [];
        const z = this.logits(t - 1), p = softmax(z);
        bits[t] = -Math.log(Math.max(p[id], 1e-300)) * LOG2E;
        for (const other of z) if (other > z[id]) rank[t]++;
        return largest(p, top).map((token) => ({ token, p: p[token] }));
      });
      return { bits, rank, guesses };
    }

    // The inner values that `want` names, of the whole text, read anew.
    look(ids, change, want) {
      return this.model.forward(ids, this.model.cache(), { change, want });
    }

    // What each layer's stream would predict after token `t`: [embedding, layer 1, ..., the last].
    lens(ids, t, change = {}, top = 5) {
      const C = this.model.config.n_embd;
      const { stream } = this.look(ids.slice(0, t + 1), change, ["stream"]);
      return stream.map((x) => {
        const p = softmax(this.model.lens(x.slice(t * C, (t + 1) * C), { change }));
        const next = ids[t + 1];
        return {
          guesses: largest(p, top).map((token) => ({ token, p: p[token] })),
          next: next === undefined ? null : { token: next, p: p[next] },
        };
      });
    }
  }

  return { Session };
};
