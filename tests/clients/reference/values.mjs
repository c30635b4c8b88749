// Arguments at random: literals as tokens and variables' values as JSON texts; most of them right, and wrong ones on demand.
import { isEnumType, isInputObjectType, isListType, isNonNullType, isRequiredInputField } from 'graphql-17';

const FIXED = {
  Boolean: [true, false],
  DateTime: ['2026-11-22T00:00:00Z', '2026-11-22T00:00:00.000+01:00', '2026-11-22t10:20:30.123456Z'],
  Decimal: ['29.90', '0', 'nonsense'],
  Duration: ['PT1H', 'P1D', 'nonsense'],
  Float: [0.5, 1, 10, 1.5e1, -1, 0],
  ID: ['a', 'nope', '', '4'],
  Int: [1, 2, 3, 0, -1, 2147483647, -2147483648],
  Long: [1, 9007199254740991],
  String: ['text', '', 'a "quoted" one', 'line\nline', '\u{1F600} é', '\\', '"""', ' indented\n  more\n'],
};

const NO_INSTANT = ['', 'today', '2026-13-01T00:00:00Z', '2026-11-22'];

export class Values {
  /** `known(place, name)` gives what is sensible for an argument or input field of a name, if anything. */
  constructor(random, known) {
    this.random = random;
    this.known = known;
  }

  /** A value that a type without wrappers takes. One that is alone is always taken. */
  #scalar(type, place, name) {
    const known = this.known(place, name);
    const fixed = FIXED[type.name] ?? ['x'];
    return this.random.pick(known !== undefined && (known.length === 1 || this.random.chance(0.9)) ? known : fixed);
  }

  /** A literal as tokens. `variable(type, place, name)` may give a variable instead, where one may stand. */
  literal(type, place, name, variable, wrong = () => false) {
    const { random } = this;
    const used = variable?.(type, place, name);
    if (used) return used;
    if (wrong('wrongLiteral')) return this.#wrong(type);
    if (isNonNullType(type)) {
      if (wrong('nullForNonNull')) return ['null'];
      return this.#given(type.ofType, place, name, variable, wrong);
    }
    if (random.chance(0.05)) return ['null'];
    return this.#given(type, place, name, variable, wrong);
  }

  #given(type, place, name, variable, wrong) {
    const { random } = this;
    if (isListType(type)) {
      if (random.chance(0.15)) return this.literal(type.ofType, place, name, undefined, wrong);
      const items = Array.from({ length: random.below(4) }, () =>
        this.literal(type.ofType, place, name, variable, wrong),
      );
      return ['[', ...items.flat(), ']'];
    }
    if (isInputObjectType(type)) {
      const tokens = ['{'];
      const fields = random.shuffled(Object.values(type.getFields()));
      for (const field of fields) {
        const required = isRequiredInputField(field);
        if (!required && random.chance(0.6)) continue;
        if (required && wrong('missingInputField')) continue;
        const copies = wrong('duplicateInputField') ? 2 : 1;
        for (let n = 0; n < copies; n += 1)
          tokens.push(field.name, ':', ...this.literal(field.type, `${type.name}.${field.name}`, field.name, this.#nested(variable, field), wrong));
      }
      if (wrong('unknownInputField')) tokens.push('nope', ':', '1');
      tokens.push('}');
      return tokens;
    }
    if (isEnumType(type)) {
      const value = random.pick(type.getValues()).name;
      if (wrong('enumAsString')) return [JSON.stringify(value)];
      if (wrong('unknownEnumValue')) return [random.pick(['NOPE', value.toLowerCase(), 'true', 'null'])];
      return [value];
    }
    return [this.#written(type, this.#scalar(type, place, name))];
  }

  /** A variable inside an input object stands at a field, whose default it may fall back to. */
  #nested(variable, field) {
    return variable && ((type, place, name) => variable(type, place, name, field));
  }

  #written(type, value) {
    const { random } = this;
    switch (type.name) {
      case 'Boolean':
      case 'Int':
      case 'Long':
        return String(value);
      case 'Float':
        return random.pick([String(value), value.toExponential(), value.toFixed(2)]);
      case 'ID':
        return /^(0|[1-9]\d{0,14})$/.test(value) && random.chance(0.5) ? value : this.string(String(value));
      default:
        return this.string(String(value));
    }
  }

  /** A text as a literal, in one of the ways to write it. */
  string(value) {
    const { random } = this;
    // A block string takes blanks off at both ends, and can't hold what has no printable form.
    const fits = value === '' || (/^[^\s\\"][^\r\t]*$/.test(value) && !/\n[ \t]|[\s\\"]$|\n$/.test(value));
    if (fits && random.chance(0.3)) {
      const inside = value.replaceAll('"""', '\\"""');
      return random.pick([`"""${inside}"""`, `"""\n${inside}\n"""`, `"""\n    ${inside.replaceAll('\n', '\n    ')}\n  """`]);
    }
    let out = '"';
    for (const character of value) {
      const code = character.codePointAt(0);
      const four = (unit) => `\\u${unit.toString(16).padStart(4, '0')}`;
      if (random.chance(0.1)) {
        const units = Array.from({ length: character.length }, (_, n) => four(character.charCodeAt(n)));
        out += random.pick([units.join(''), `\\u{${code.toString(16)}}`, `\\u{${code.toString(16).toUpperCase().padStart(6, '0')}}`]);
      } else if (character === '/' && random.chance(0.5)) out += '\\/';
      else out += JSON.stringify(character).slice(1, -1);
    }
    return `${out}"`;
  }

  #wrong(type) {
    const bare = isNonNullType(type) ? type.ofType : type;
    const others = ['1.5', '"text"', 'NOPE', '{', '[', 'true', '2147483648', '1e3', '-0', '""""""'];
    const drawn = this.random.pick(others);
    if (drawn === '{') return ['{', 'a', ':', '1', '}'];
    if (drawn === '[') return ['[', isListType(bare) ? '[' : '', '1', isListType(bare) ? ']' : '', ']'].filter(Boolean);
    return [drawn];
  }

  /** A variable's value as a JSON text. */
  json(type, place, name) {
    const { random } = this;
    if (isNonNullType(type)) return this.#jsonGiven(type.ofType, place, name);
    return random.chance(0.08) ? 'null' : this.#jsonGiven(type, place, name);
  }

  #jsonGiven(type, place, name) {
    const { random } = this;
    if (isListType(type)) {
      if (random.chance(0.2)) return this.json(type.ofType, place, name);
      return `[${Array.from({ length: random.below(4) }, () => this.json(type.ofType, place, name))}]`;
    }
    if (isInputObjectType(type)) {
      const fields = random.shuffled(Object.values(type.getFields()));
      const given = fields.filter((field) => isRequiredInputField(field) || random.chance(0.4));
      const entries = given.map(
        (field) => `"${field.name}":${this.json(field.type, `${type.name}.${field.name}`, field.name)}`,
      );
      return `{${entries}}`;
    }
    if (isEnumType(type)) return JSON.stringify(random.pick(type.getValues()).name);
    const value = this.#scalar(type, place, name);
    if (type.name === 'Int') return random.pick([String(value), value === 0 ? '0.0' : `${value}.0`, `${value}e0`]);
    if (type.name === 'ID' && /^(0|[1-9]\d{0,14})$/.test(value) && random.chance(0.5)) return random.pick([value, `${value}.0`]);
    return JSON.stringify(value);
  }

  /** A JSON text that a type, more often than not, refuses. */
  wrongJson(type, place, name) {
    const bare = isNonNullType(type) ? type.ofType : type;
    const { random } = this;
    if (isInputObjectType(bare) && random.chance(0.6)) {
      const right = this.#jsonGiven(bare, place, name);
      const extra = `${right.slice(0, -1)}${right === '{}' ? '' : ','}"nope":1}`;
      const first = Object.values(bare.getFields()).find(isRequiredInputField);
      return random.pick(first ? [extra, `{"${first.name}":null}`, '{}', `[${right}]`] : [extra]);
    }
    if (isListType(bare) && random.chance(0.6))
      return random.pick([`[${this.wrongJson(bare.ofType, place, name)}]`, '[null]', `[[${this.json(bare.ofType, place, name)}]]`]);
    if (bare.name === 'DateTime') return JSON.stringify(random.pick(NO_INSTANT));
    return random.pick(['1.5', '"3"', 'true', '{}', '[]', '2147483648', '-2147483649', '1e3', '"true"', '"NOPE"', '1']);
  }
}
