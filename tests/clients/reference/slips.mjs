// Slips of a document's tokens: mostly what the grammar refuses, now and then what it takes all the same.

const CHANGES = {
  dropToken: (tokens, at) => [...tokens.slice(0, at), ...tokens.slice(at + 1)],
  doubleToken: (tokens, at) => [...tokens.slice(0, at), tokens[at], ...tokens.slice(at)],
  swapTokens: (tokens, at) => [...tokens.slice(0, at), ...tokens.slice(at, at + 2).reverse(), ...tokens.slice(at + 2)],
  cutOff: (tokens, at) => tokens.slice(0, at),
  strayToken: (tokens, at, random) => [...tokens.slice(0, at), random.pick(STRAY), ...tokens.slice(at)],
  emptySelection: (tokens, at) => [...tokens.slice(0, at), '{', '}', ...tokens.slice(at)],
  badString: (tokens, _, random) => inString(tokens, random.pick(BAD_STRINGS)),
  goodString: (tokens, _, random) => inString(tokens, random.pick(GOOD_STRINGS)),
  number: (tokens, _, random) => inNumber(tokens, random.pick(NUMBERS)),
};

const STRAY = [
  '{', '}', '(', ')', '[', ']', ':', '=', '@', '!', '|', '&', '$', '...', '..', '.', '"', '""', '"""', '"""text"""', '1', '-1', '1.5', 'on',
  'name', 'é', '%', '\u0000', '\u0007', '\u200B', '\u00A0', '?', ';', '\\', "'a'", '__typename', 'type T { a: Int }',
  'extend type Query { a: Int }', 'fragment', 'subscription', '@skip', '@deprecated', '@oneOf', '@defer', '#', '0x1', '//', '/* */', '`', '*',
];
const BAD_STRINGS = [
  '"\\uD83D"', '"\\uDE00"', '"\\uDE00\\uD83D"', '"\\uD83Dx"', '"\\u{D800}"', '"\\u{110000}"', '"\\u{}"', '"\\u{12"', '"\\u12"', '"\\x41"',
  '"\\a"', '"\\\'"', '"open', '"line\nbreak"', '"carriage\rreturn"', '"\u0000"', '"\u0007"', '"""open', '"""open \\"""', '"""\u0000"""', '"\\uD83D\\u{DE00}"', '"\\u{0000000041"',
  '"\\U0041"', '"\\u{ 41 }"', '"\\uD83D\\n"',
];
const GOOD_STRINGS = [
  '"\\uD83D\\uDE00"', '"\\ud83d\\ude00"', '"\\u{1F600}"', '"\\u{0000000000041}"', '"\\u{10FFFF}"', '"\\u0041"', '"\\b\\f\\n\\r\\t\\/\\\\\\""', '"\ttab"', '""',
  '""""""', '"""\\""" """', '"""\n"""', '"""\r\n  a\r\n    b\r\n  c\r\n"""', '"""  a\n\t b"""', '"""\\u0041 \\n"""', '"# no comment"', '"""a "quoted" word"""', '"\\u{a}"',
  '"\u2028"', '"\\u0000"', '"""\\\\"""', '"""a""b"""', '"\uFEFF"', '"\u007F"', '"\u0080"', '"""\u007F"""',
];
const NUMBERS = ['01', '-01', '00', '-', '1.', '.5', '1.e1', '1e', '1e+', '0x1F', '1a', '1_000', '+1', '0', '-0', '1.0', '1E3', '1e-3', '-0.0', '0.0e0', '1.5.2', '12e3.4', '1.0a', '1"a"', '--1', '9223372036854775808', '123456789012345678901234567890', '-2147483649', '1e308'];

export const TOKEN_SLIPS = Object.keys(CHANGES);

export function slipped(kind, tokens, random) {
  return CHANGES[kind](tokens, random.below(tokens.length), random);
}

/** Puts a text where the document has one, or where it may have one. */
function inString(tokens, string) {
  const at = tokens.findIndex((token) => token.startsWith('"'));
  if (at >= 0) return tokens.map((token, n) => (n === at ? string : token));
  return [...tokens, 'query', 'Text', '{', 'product', '(', 'id', ':', string, ')', '{', 'id', '}', '}'];
}

function inNumber(tokens, number) {
  const at = tokens.findIndex((token) => /^-?\d/.test(token));
  if (at >= 0) return tokens.map((token, n) => (n === at ? number : token));
  return ['query', '{', 'product', '(', 'id', ':', number, ')', '{', 'id', '}', '}'];
}
