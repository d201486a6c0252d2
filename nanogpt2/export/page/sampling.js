// From logits to a token, as nanogpt2/inference/sampling.py has it. Chapter: speedrun.
globalThis.nanogpt2 ??= {};

nanogpt2.sampling = () => {
  // Probabilities of all tokens.
  function softmax(logits, temperature = 1) {
    const most = logits.reduce((a, b) => Math.max(a, b));
    const out = Float64Array.from(logits, (z) => Math.exp((z - most) / temperature));
    const sum = out.reduce((a, b) => a + b, 0);
    return out.map((p) => p / sum);
  }

  // The k largest of an array, largest first: their places. Of equals the earlier.
  function largest(values, k) {
    const best = [];
    for (let i = 0; i < values.length; i++) {
      if (best.length === k && !(values[i] > values[best[k - 1]])) continue;
      let at = best.length;
      while (at > 0 && values[i] > values[best[at - 1]]) at--;
      best.splice(at, 0, i);
      if (best.length > k) best.pop();
    }
    return best;
  }

  // Whom a draw may take: temperature first, then top-k, then top-p over what top-k left.
  // Gives tokens, likeliest first, with probabilities that sum to 1.
  function candidates(logits, { temperature = 1, topK = 0, topP = 1 } = {}) {
    if (temperature <= 0) return { tokens: largest(logits, 1), p: [1] };
    const all = softmax(logits, temperature);
    let tokens = Array.from(all.keys()).sort((a, b) => all[b] - all[a] || a - b);
    if (topK > 0) tokens = tokens.slice(0, topK);
    const sum = tokens.reduce((sum, token) => sum + all[token], 0);
    let before = 0, kept = 0;
    for (const token of tokens) {
      if (kept && before >= topP * sum) break;
      before += all[token];
      kept++;
    }
    tokens = tokens.slice(0, kept);
    return { tokens, p: tokens.map((token) => all[token] / before) };
  }

  // Numbers in [0, 1) from a seed (mulberry32 by Tommy Ettinger, public domain).
  function random(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) | 0;
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
  }

  function draw({ tokens, p }, chance) {
    let sum = 0;
    for (let i = 0; i < tokens.length; i++) if ((sum += p[i]) > chance) return tokens[i];
    return tokens[tokens.length - 1];
  }

  return { softmax, largest, candidates, random, draw };
};
