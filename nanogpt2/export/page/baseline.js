// The bigram baseline of scripts/bigram.py: what a count of pairs knows. Chapter: tokens_and_rows.
globalThis.nanogpt2 ??= {};

nanogpt2.baseline = () => {
  class Bigram {
    // bytes: frequency (V) float32; pairs kept after each token (V) uint16; their second tokens
    // (n) uint16; -16 log2 of their probabilities (n) uint8
    constructor(bytes, vocab, pairs) {
      this.frequency = new Float32Array(bytes.buffer, 0, vocab);
      const counts = new Uint16Array(bytes.buffer, 4 * vocab, vocab);
      this.seconds = new Uint16Array(bytes.buffer, 6 * vocab, pairs);
      this.costs = new Uint8Array(bytes.buffer, 6 * vocab + 2 * pairs, pairs);
      this.start = new Uint32Array(vocab + 1);
      counts.forEach((count, token) => (this.start[token + 1] = this.start[token] + count));
      this.left = new Map();
    }

    // Probability of `second` after `first`: its own where the pair is kept; the others share
    // what is left by their frequency.
    p(first, second) {
      for (let i = this.start[first]; i < this.start[first + 1]; i++)
        if (this.seconds[i] === second) return 2 ** (-this.costs[i] / 16);
      if (!this.left.has(first)) {
        let mass = 1, frequency = 1;
        for (let i = this.start[first]; i < this.start[first + 1]; i++) {
          mass -= 2 ** (-this.costs[i] / 16);
          frequency -= this.frequency[this.seconds[i]];
        }
        this.left.set(first, mass / frequency);
      }
      return this.left.get(first) * this.frequency[second];
    }

    // Bits of each token but the first.
    bits(ids) {
      return ids.map((id, t) => (t === 0 ? NaN : -Math.log2(this.p(ids[t - 1], id))));
    }
  }

  return { Bigram };
};
