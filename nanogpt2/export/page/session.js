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
      this.scoreAt = [];
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
      this.hidden.length = this.logitsAt.length = this.scoreAt.length = same;
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
      const all = ids.map((id, t) => (this.scoreAt[t] ??= this.score(id, t, top)));
      return {
        bits: Float32Array.from(all, (one) => one.bits),
        rank: Int32Array.from(all, (one) => one.rank),
        guesses: all.map((one) => one.guesses.slice(0, top)),
      };
    }

    score(id, t, top) {
      if (t === 0) return { bits: NaN, rank: 0, guesses: [] };
      const z = this.logits(t - 1), p = softmax(z);
      const guesses = largest(p, Math.max(top, 10)).map((token) => ({ token, p: p[token] }));
      const rank = z.reduce((sum, other) => sum + (other > z[id]), 0);
      return { bits: -Math.log(Math.max(p[id], 1e-300)) * LOG2E, rank, guesses };
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
