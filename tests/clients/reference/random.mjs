// Numbers at random that a seed determines, and texts of documents with everything that the grammar ignores between tokens.

export class Random {
  #state;

  constructor(seed) {
    this.#state = seed >>> 0;
  }

  /** From 0 up to, but not including, 1: mulberry32. */
  next() {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number below `limit`. */
  below(limit) {
    return Math.floor(this.next() * limit);
  }

  chance(share) {
    return this.next() < share;
  }

  pick(list) {
    return list[this.below(list.length)];
  }

  shuffled(list) {
    const left = [...list];
    const out = [];
    while (left.length > 0) out.push(...left.splice(this.below(left.length), 1));
    return out;
  }
}

const IGNORED = [' ', '  ', '\n', '\t', '\r\n', '\r', ',', ' , ', '\uFEFF', '# a comment }"\n', '#\r', '#é \u{1F600}\n'];
/** Tokens that would run into each other. */
const WORD = /^[\w.-]/;
const WORD_END = /[\w.]$/;

/** Tokens as a text: dense, spaced or wild. */
export function text(tokens, random) {
  const style = random.below(4);
  let out = style === 3 && random.chance(0.2) ? '\uFEFF' : '';
  for (const token of tokens) {
    const touching = (WORD_END.test(out) && WORD.test(token)) || (out.endsWith('"') && token.startsWith('"'));
    const spaces = style === 3 ? random.below(3) : style > 0 || touching ? 1 : 0;
    for (let n = 0; n < spaces; n += 1) out += style === 3 && random.chance(0.5) ? random.pick(IGNORED) : ' ';
    // What was drawn may be a comma or a comment: enough between any two tokens. Nothing drawn needs a blank.
    if (touching && spaces === 0) out += ' ';
    out += token;
  }
  return style === 3 && random.chance(0.2) ? `${out}# the end` : out;
}
