// The forward pass of nanogpt2/model/gpt.py, switch by switch, with a cache, open to changes.
globalThis.nanogpt2 ??= {};

nanogpt2.model = ({ Matrix }) => {
  const sigmoid = (z) => 1 / (1 + Math.exp(-z));

  // Chapter: norms. x (T, n) -> each row over its root mean square, or LayerNorm; new array.
  function normed(x, n, kind = "rms", gain = null, shift = null) {
    const y = new Float32Array(x.length);
    for (let at = 0; at < x.length; at += n) {
      let mean = 0, squares = 0;
      if (kind === "layer") {
        for (let i = 0; i < n; i++) mean += x[at + i];
        mean /= n;
      }
      for (let i = 0; i < n; i++) squares += (x[at + i] - mean) ** 2;
      const by = 1 / Math.sqrt(squares / n + (kind === "layer" ? 1e-5 : 2 ** -23));
      for (let i = 0; i < n; i++)
        y[at + i] = (x[at + i] - mean) * by * (gain ? gain[i] : 1) + (shift ? shift[i] : 0);
    }
    return y;
  }

  // To the nearest bfloat16, of equals the even: the package keeps its rotary tables so.
  const bits = new Uint32Array(1), float = new Float32Array(bits.buffer);
  function bf16(value) {
    float[0] = value;
    bits[0] = (bits[0] + 0x7fff + ((bits[0] >>> 16) & 1)) & 0xffff0000;
    return float[0];
  }

  // Chapter: rotary_positions. cos and sin of each position x frequency, (T, D/2) each.
  function rotaryTables(positions, D, base) {
    const half = D / 2, cos = new Float32Array(positions.length * half), sin = cos.slice();
    const frequency = Float32Array.from({ length: half }, (_, i) => base ** -Math.fround((2 * i) / D));
    positions.forEach((position, t) => {
      for (let i = 0; i < half; i++) {
        const angle = Math.fround(Math.fround(position) * frequency[i]);
        cos[t * half + i] = bf16(Math.cos(angle));
        sin[t * half + i] = bf16(Math.sin(angle));
      }
    });
    return { cos, sin };
  }

  // Turns x (T, heads, D) in place: pair i is (i, i + D/2), or wrongly (2 i, 2 i + 1).
  function rotate(x, D, { cos, sin }, pairing = "halves") {
    const half = D / 2, heads = x.length / D / (cos.length / half);
    for (let at = 0, row = 0; at < x.length; at += D, row++) {
      const turn = Math.floor(row / heads) * half;
      for (let i = 0; i < half; i++) {
        const a = at + (pairing === "halves" ? i : 2 * i);
        const b = pairing === "halves" ? a + half : a + 1;
        const c = cos[turn + i], s = sin[turn + i], first = x[a], second = x[b];
        x[a] = first * c + second * s;
        x[b] = second * c - first * s;
      }
    }
  }

  // Keys and values of the tokens that were read, a layer each; to cut it, make `length` smaller.
  class Cache {
    constructor(layers, width) {
      Object.assign(this, { width, length: 0, tokens: [] });
      this.keys = Array.from({ length: layers }, () => new Float32Array(64 * width));
      this.values = this.keys.map((keys) => keys.slice());
    }

    put(layer, at, k, v) {
      for (const [kept, fresh] of [[this.keys, k], [this.values, v]]) {
        if (kept[layer].length < at * this.width + fresh.length) {
          const more = new Float32Array(2 * (at * this.width + fresh.length));
          more.set(kept[layer].subarray(0, at * this.width));
          kept[layer] = more;
        }
        kept[layer].set(fresh, at * this.width);
      }
    }
  }

  // What a reader may change while the model runs, by name; README.md beside this file lists them.
  class Model {
    // weights: name -> Matrix or Float32Array, by the names of the package's state_dict
    constructor(config, weights) {
      Object.assign(this, { config, weights });
      this.head = weights[config.tied_head ? "transformer.wte.weight" : "lm_head.weight"];
      this.D = config.n_embd / config.n_head;
    }

    cache() {
      return new Cache(this.config.n_layer, this.config.n_kv_head * this.D);
    }

    norm(x, name) {
      const { config, weights } = this;
      return normed(x, config.n_embd, config.norm, weights[`${name}.weight`], weights[`${name}.bias`]);
    }

    linear(x, T, name) {
      return this.weights[`${name}.weight`].apply(x, T, this.weights[`${name}.bias`]);
    }

    // Chapter: plain_gpt. Embeddings of tokens at positions from `start` on, before smear.
    embed(tokens, start) {
      const { n_embd: C, positions, embedding_norm } = this.config;
      const x = new Float32Array(tokens.length * C);
      tokens.forEach((token, t) => {
        const row = x.subarray(t * C, (t + 1) * C);
        this.weights["transformer.wte.weight"].row(token, row);
        if (positions === "learned") {
          const place = this.weights["transformer.wpe.weight"].row(start + t);
          for (let c = 0; c < C; c++) row[c] += place[c];
        }
      });
      return embedding_norm ? this.norm(x, "embedding_norm") : x;
    }

    // The sixth record's smear: x[t] += lambda sigmoid(W x[t, :channels]) x[t - 1].
    smear(x, tokens, start, cache, change) {
      const { n_embd: C, smear_channels: channels } = this.config, T = tokens.length;
      const gate = this.weights["smear_gate.weight"];
      const strength = change.smear_lambda ?? this.weights.smear_lambda[0];
      const before = start ? this.embed([cache.tokens[start - 1]], start - 1) : new Float32Array(C);
      const out = x.slice();
      for (let t = 0; t < T; t++) {
        const open = strength * sigmoid(gate.apply(x.subarray(t * C, t * C + channels), 1)[0]);
        for (let c = 0; c < C; c++) out[t * C + c] += open * (t ? x[(t - 1) * C + c] : before[c]);
      }
      return out;
    }

    // Chapter: value_embeddings. v += g * (the token's row of this layer's table), in place.
    addValues(v, h, tokens, layer, change, seen) {
      const { n_embd: C, n_kv_head: K, value_gate_channels: channels, value_gate_range: range } = this.config;
      const { D } = this, T = tokens.length, table = this.weights[`value_embeds.${layer}.weight`];
      if (!table || change.empty_values?.includes(layer)) return;
      const gate = this.weights[`transformer.h.${layer}.attn.ve_gate.weight`];
      const swap = new Map((change.swap_values ?? []).flatMap(([a, b]) => [[a, b], [b, a]]));
      for (let t = 0; t < T; t++) {
        const open = gate.apply(h.subarray(t * C, t * C + channels), 1);
        const row = table.row(swap.get(tokens[t]) ?? tokens[t]);
        for (let k = 0; k < K; k++) {
          const g = range * sigmoid(open[k]) * (change.value_gate ?? 1);
          if (seen.gates) seen.gates[layer][t * K + k] = g;
          for (let d = 0; d < D; d++) v[(t * K + k) * D + d] += g * row[k * D + d];
        }
      }
    }

    // Chapters: windows, norms, rotary_positions. One layer's attention, (T, C) -> (T, C).
    attend(h, tokens, layer, rotation, cache, change, seen) {
      const { config, D } = this, T = tokens.length, start = cache.length;
      const { n_head: H, n_kv_head: K } = config, name = `transformer.h.${layer}.attn`;
      const [q, v] = ["c_q", "c_v"].map((part) => this.linear(h, T, `${name}.${part}`));
      const k = this.linear(h, T, `${name}.c_k`);
      this.addValues(v, h, tokens, layer, change, seen);
      if (rotation) {
        rotate(q, D, rotation, change.rope?.pairing);
        rotate(k, D, rotation, change.rope?.pairing);
      }
      if (seen.norms) {
        const length = (x) => Float32Array.from({ length: x.length / D }, (_, i) =>
          Math.hypot(...x.subarray(i * D, (i + 1) * D)));
        seen.norms[layer] = { q: length(q), k: length(k) }; // (T, H) and (T, K), before QK-norm
      }
      const normal = change.qk_norm ?? config.qk_norm;
      const [q1, k1] = normal ? [normed(q, D), normed(k, D)] : [q, k];
      const scale = change.qk_scale ?? config.qk_scale;
      if (scale !== 1) for (const x of [q1, k1]) for (let i = 0; i < x.length; i++) x[i] *= scale;
      cache.put(layer, start, k1, v);

      const keys = cache.keys[layer], values = cache.values[layer], S = start + T;
      const window = this.window(layer, change), off = change.heads_off ?? [];
      const y = new Float32Array(T * H * D), weight = new Float32Array(S);
      for (let head = 0; head < H; head++) {
        if (off.some(([l, o]) => l === layer && o === head)) continue;
        const kv = Math.floor(head / (H / K)) * D;
        for (let t = 0; t < T; t++) {
          const at = (t * H + head) * D, last = start + t, first = Math.max(0, last - window);
          let most = -Infinity, sum = 0;
          for (let s = first; s <= last; s++) {
            let score = 0;
            for (let d = 0, key = s * K * D + kv; d < D; d++) score += q1[at + d] * keys[key + d];
            weight[s] = score / Math.sqrt(D);
            if (weight[s] > most) most = weight[s];
          }
          const row = (head * T + t) * S;
          if (seen.scores) seen.scores[layer].set(weight.subarray(first, last + 1), row + first);
          for (let s = first; s <= last; s++) sum += weight[s] = Math.exp(weight[s] - most);
          for (let s = first; s <= last; s++) {
            const share = (weight[s] /= sum), value = s * K * D + kv;
            for (let d = 0; d < D; d++) y[at + d] += share * values[value + d];
          }
          if (seen.attention) seen.attention[layer].set(weight.subarray(first, last + 1), row + first);
        }
      }
      return this.linear(y, T, `${name}.c_proj`);
    }

    // Keys to the left that a layer sees.
    window(layer, change = {}) {
      return change.windows?.[layer] ?? this.config.windows[layer];
    }

    mlp(h, T, layer) {
      const name = `transformer.h.${layer}.mlp`, { activation } = this.config;
      const u = this.linear(h, T, `${name}.c_fc`);
      if (activation === "relu2") for (let i = 0; i < u.length; i++) u[i] = u[i] > 0 ? u[i] * u[i] : 0;
      else if (activation === "gelu")
        for (let i = 0; i < u.length; i++)
          u[i] *= 0.5 * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (u[i] + 0.044715 * u[i] ** 3)));
      else {
        const g = this.linear(h, T, `${name}.c_gate`);
        for (let i = 0; i < u.length; i++) u[i] *= g[i] * sigmoid(g[i]);
      }
      return this.linear(u, T, `${name}.c_proj`);
    }

    // Reads `tokens` after what the cache holds. Gives the stream after the last norm (T, C), and
    // of the inner values those that `want` names: "stream", "attention", "scores", "norms", "gates".
    forward(tokens, cache = this.cache(), { change = {}, want = [] } = {}) {
      const { config, weights } = this, { n_layer: L, n_embd: C, n_head: H } = config;
      const T = tokens.length, start = cache.length;
      const seen = Object.fromEntries(want.map((name) => [name, []]));
      const square = (empty) => Array.from({ length: L }, () => new Float32Array(H * T * (start + T)).fill(empty));
      if (seen.attention) seen.attention = square(0);
      if (seen.scores) seen.scores = square(NaN);
      if (seen.gates) seen.gates = Array.from({ length: L }, () => new Float32Array(T * config.n_kv_head));

      let rotation = null;
      if (config.positions === "rope") {
        const { base = config.rope_base, shift = 0, stretch = 1 } = change.rope ?? {};
        rotation = rotaryTables(tokens.map((_, t) => (start + t) * stretch + shift), this.D, base);
      }
      let x = this.embed(tokens, start);
      if (config.smear) x = this.smear(x, tokens, start, cache, change);
      const x0 = x;
      let halfway = x;
      seen.stream?.push(x.slice());
      for (let i = 0; i < L; i++) {
        if (config.residual_scalars) { // chapter: value_embeddings
          const keep = weights.resid_lambdas[i] * (change.resid_scale ?? 1);
          const again = weights.x0_lambdas[i] * (change.x0_scale ?? 1);
          x = x.map((value, j) => keep * value + again * x0[j]);
        } else x = x.slice();
        if (!change.skip_layers?.includes(i)) {
          const a = this.attend(this.norm(x, `transformer.h.${i}.attn_norm`), tokens, i, rotation, cache, change, seen);
          for (let j = 0; j < x.length; j++) x[j] += a[j];
          const m = this.mlp(this.norm(x, `transformer.h.${i}.mlp_norm`), T, i);
          for (let j = 0; j < x.length; j++) x[j] += m[j];
        }
        if (i === L >> 1) halfway = x;
        seen.stream?.push(x.slice());
      }
      if (config.backout) {
        const back = change.backout_lambda ?? weights.backout_lambda[0];
        x = x.map((value, j) => value - back * halfway[j]);
        if (seen.stream) seen.stream[L] = x.slice();
      }
      cache.length = cache.tokens.length = start;
      cache.tokens.push(...tokens);
      cache.length += T;
      return { hidden: this.norm(x, "final_norm"), ...seen };
    }

    // Softcapped logits (T, V) of the stream after the last norm.
    logits(hidden, { change = {} } = {}) {
      const z = this.head.apply(hidden, hidden.length / this.config.n_embd);
      const cap = change.logit_softcap ?? this.config.logit_softcap;
      return cap ? z.map((value) => cap * Math.tanh(value / cap)) : z;
    }

    // What a layer would say already: logits of a stream that has not been through the rest.
    lens(stream, options) {
      return this.logits(this.norm(stream, "final_norm"), options);
    }
  }

  return { Model, Matrix, rotaryTables, normed };
};
