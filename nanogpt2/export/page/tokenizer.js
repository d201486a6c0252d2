// Byte-level BPE, as nanogpt2/data/tokenizer.py has it. Chapter: tokens_and_rows.
globalThis.nanogpt2 ??= {};

nanogpt2.tokenizer = () => {
  const UTF8 = new TextEncoder();

  class Tokenizer {
    // tokens: base64 of each token's bytes, by id; special: the names that follow them.
    constructor({ pattern, tokens, special }) {
      this.split = new RegExp(pattern, "gu");
      this.bytes = tokens.map((text) => atob(text)); // a string of letters 0 to 255 for its bytes
      this.rank = new Map(this.bytes.map((bytes, id) => [bytes, id]));
      this.special = special;
      this.bos = tokens.length + special.indexOf("<|bos|>");
      this.size = tokens.length + special.length;
    }

    // Token ids of a text; text that spells a special token is text.
    encode(text) {
      const ids = [];
      for (const [piece] of text.matchAll(this.split))
        for (const id of this.merge(Array.from(UTF8.encode(piece), (byte) => String.fromCharCode(byte)))) ids.push(id);
      return ids;
    }

    // Join the neighbours whose joint token was learned first, again and again.
    merge(parts) {
      const whole = this.rank.get(parts.join(""));
      if (whole !== undefined) return [whole];
      const joint = (i) => (i + 1 < parts.length ? this.rank.get(parts[i] + parts[i + 1]) ?? Infinity : Infinity);
      const ranks = parts.map((_, i) => joint(i)); // of each with the next
      for (;;) {
        let at = 0;
        for (let i = 1; i < ranks.length; i++) if (ranks[i] < ranks[at]) at = i;
        if (ranks[at] === Infinity) return parts.map((part) => this.rank.get(part));
        parts.splice(at, 2, parts[at] + parts[at + 1]);
        ranks.splice(at, 2, joint(at));
        if (at) ranks[at - 1] = joint(at - 1);
      }
    }

    // Bytes of a token; none for a special one.
    lengthOf(id) {
      return id < this.bytes.length ? this.bytes[id].length : 0;
    }

    raw(ids) {
      return Uint8Array.from(ids.map((id) => this.bytes[id] ?? "").join(""), (c) => c.charCodeAt(0));
    }

    decode(ids) {
      return new TextDecoder("utf-8", { ignoreBOM: true }).decode(this.raw(ids));
    }

    // What to show for one token: a part of a character as its bytes, a special one by its name.
    show(id) {
      if (id >= this.bytes.length) return this.special[id - this.bytes.length] ?? "";
      const bytes = this.raw([id]);
      try {
        return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
      } catch {
        return [...bytes].map((byte) => `<${byte.toString(16).padStart(2, "0")}>`).join("");
      }
    }
  }

  return { Tokenizer };
};
