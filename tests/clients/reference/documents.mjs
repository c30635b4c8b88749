// Documents at random from a schema: valid ones, and ones with one slip of a kind that the specification refuses.
import { getNamedType, isAbstractType, isCompositeType, isInputType, isLeafType, isNonNullType, isObjectType, isRequiredArgument } from 'graphql-17';
import { text } from './random.mjs';
import { TOKEN_SLIPS, slipped } from './slips.mjs';
import { Values } from './values.mjs';

/** What can go wrong where the document is made; `slips.mjs` has what goes wrong with its tokens. */
const SLIPS = [
  'argumentOfNoField', 'circle', 'compositeWithoutSelection', 'conflictingArguments', 'conflictingFields',
  'directiveOnVariable', 'directiveTwice', 'directiveWithoutArgument', 'duplicateArgument', 'duplicateFragment',
  'duplicateInputField', 'duplicateOperation', 'duplicateVariable', 'emptyOperationName', 'enumAsString',
  'fragmentOnInput', 'fragmentOnLeaf', 'fragmentOnUnknownType', 'impossibleFragment', 'introspectionTooDeep',
  'leafWithSelection', 'misplacedDirective', 'missingArgument', 'missingInputField', 'noOperationName',
  'nullForNonNull', 'nullableVariable', 'otherVariableType', 'secondAnonymous', 'skipAtRoot', 'twoRoots',
  'undefinedVariable', 'unknownDirective', 'unknownEnumValue', 'unknownField', 'unknownFragment', 'unknownInputField',
  'unknownOperationName', 'unknownVariableType', 'unusedFragment', 'unusedVariable', 'variableOfOutputType',
  'wrongDefault', 'wrongDirectiveArgument', 'wrongJson', 'wrongLiteral',
];
const NAMES = ['A', 'B', 'query', 'fragment', 'on', 'type', 'null', 'true', '_', 'x1', 'mutation', 'input'];

export class Documents {
  /** `known(place, name)` gives sensible values for the argument or input field of a name. */
  constructor(schema, random, known) {
    Object.assign(this, { schema, random });
    this.values = new Values(random, known);
    const types = Object.values(schema.getTypeMap());
    this.composites = types.filter((type) => isCompositeType(type) && !type.name.startsWith('__'));
    this.inputs = types.filter(isInputType);
    this.leaves = types.filter(isLeafType);
  }

  /** `kind` is that of the operation that is asked for; fields of its root may be left out. */
  make(kind, without = []) {
    const { random } = this;
    const drawn = random.next();
    const slip = drawn < 0.45 ? undefined : random.pick(drawn < 0.9 ? SLIPS : TOKEN_SLIPS);
    return { kind, ...new Draft(this, slip, without).document(kind) };
  }
}

/** One document while it is made. */
class Draft {
  #slip;
  /** By name: type, tokens, and what they use. */
  #fragments = new Map();
  /** By name: type, default's tokens, JSON text or undefined. */
  #variables = new Map();
  /** What comes after the names of fields, so that a field met twice asks for the same. */
  #heads = new Map();
  #scope = newScope();
  #aliases = 0;
  /** Selections that may yet be drawn, so that no document outgrows the server's limits. */
  #left;

  constructor(maker, slip, without) {
    Object.assign(this, { schema: maker.schema, random: maker.random, values: maker.values, maker, without });
    this.#slip = slip;
    this.#left = 3 + maker.random.below(30);
  }

  /** Whether it is now that the document's slip happens. */
  #slips = (name) => {
    if (this.#slip !== name || this.random.chance(0.4)) return false;
    this.#slip = undefined;
    this.happened = name;
    return true;
  };

  document(kind) {
    const { random } = this;
    const names = random.shuffled(NAMES);
    const several = random.chance(0.08);
    const made = [this.#operation(kind)];
    if (several) made.push(this.#operation(random.pick(['query', 'mutation', 'subscription'])));
    const named = several || random.chance(0.4);
    const label = names.pop();
    let operationName = several || (named && random.chance(0.3)) ? label : undefined;
    const labels = [label, names.pop()];
    if (several && this.#slips('duplicateOperation')) labels[1] = label;
    if (several && this.#slips('noOperationName')) operationName = undefined;
    if (this.#slips('unknownOperationName')) operationName = 'Unknown';
    if (this.#slips('emptyOperationName')) operationName = '';
    const definitions = made.map((operation, n) => this.#defined(operation, named ? labels[n] : undefined));
    if (this.#slips('secondAnonymous')) definitions.push(['{', '__typename', '}']);
    definitions.push(...this.#fragmentDefinitions());
    let tokens = random.shuffled(definitions).flat();
    if (TOKEN_SLIPS.includes(this.#slip)) {
      tokens = slipped(this.#slip, tokens, random);
      this.happened = this.#slip;
    }
    return { query: text(tokens, random), variables: this.#variablesText(), operationName, slip: this.happened };
  }

  #operation(kind) {
    const { random } = this;
    this.#scope = newScope();
    const type = this.schema.getRootType(kind);
    const directives = this.#slips('misplacedDirective') ? ['@skip', '(', 'if', ':', 'false', ')'] : [];
    const selection = this.#selection(type, 1 + random.below(5));
    return { kind, scope: this.#scope, tokens: [...directives, ...selection] };
  }

  /** An operation with the variables that it and the fragments it reaches use. */
  #defined({ kind, scope, tokens }, name) {
    const { random } = this;
    const reached = [scope];
    const seen = new Set();
    for (const { spreads } of reached)
      for (const spread of spreads) {
        const fragment = this.#fragments.get(spread);
        if (fragment && !seen.has(spread)) reached.push(fragment.scope);
        seen.add(spread);
      }
    const used = random.shuffled(new Set(reached.flatMap((part) => [...part.variables])));
    if (this.#slips('undefinedVariable')) used.pop();
    if (this.#slips('unusedVariable')) used.push(this.#newVariable('Int', undefined, '1'));
    if (used.length > 0 && this.#slips('duplicateVariable')) used.push(used[0]);
    const variables = used.flatMap((variable) => {
      const { type, fallback } = this.#variables.get(variable);
      const directives = this.#slips('directiveOnVariable') ? ['@skip', '(', 'if', ':', 'false', ')'] : [];
      return ['$', variable, ':', ...type.match(/\w+|\W/g), ...(fallback ? ['=', ...fallback] : []), ...directives];
    });
    const short = kind === 'query' && !name && variables.length === 0 && tokens[0] === '{' && random.chance(0.7);
    if (short) return tokens;
    const described = random.chance(0.03) ? [random.pick(['"described"', '"""\n  described\n"""'])] : [];
    return [...described, kind, ...(name ? [name] : []), ...(variables.length ? ['(', ...variables, ')'] : []), ...tokens];
  }

  #fragmentDefinitions() {
    const { random } = this;
    if (this.#slips('unusedFragment')) this.#newFragment(random.pick(this.maker.composites), 1, 'Unused');
    const out = [];
    for (const [name, { type, tokens }] of this.#fragments) {
      const copies = this.#slips('duplicateFragment') ? 2 : 1;
      const inside = this.#slips('circle') ? ['{', '...', name, ...tokens.slice(1)] : tokens;
      const condition = this.#slips('fragmentOnUnknownType') ? 'Nowhere' : type.name;
      const directives = this.#slips('misplacedDirective') ? ['@include', '(', 'if', ':', 'true', ')'] : [];
      for (let n = 0; n < copies; n += 1)
        out.push(['fragment', name, 'on', condition, ...directives, ...inside]);
    }
    return out;
  }

  #variablesText() {
    const entries = [...this.#variables].filter(([, { json }]) => json !== undefined);
    if (entries.length === 0 && this.random.chance(0.5)) return undefined;
    return `{${entries.map(([name, { json }]) => `${JSON.stringify(name)}:${json}`)}}`;
  }

  /** Selections in braces; `depth` is how many fields deep they may go. */
  #selection(type, depth) {
    const { random } = this;
    const tokens = ['{'];
    const made = [];
    const root = type === this.schema.getSubscriptionType();
    const count = root ? 1 + (this.#slips('twoRoots') ? 1 : 0) : 1 + random.below(4);
    for (let n = 0; n < count; n += 1) {
      if ((this.#left -= 1) < 0 && n > 0) break;
      const drawn = this.#left < 0 ? 1 : random.next();
      if (made.length > 0 && drawn < 0.15 && !root) tokens.push(...random.pick(made)());
      else if (drawn < 0.27) tokens.push(...this.#inline(type, depth));
      else if (drawn < 0.39) tokens.push(...this.#spread(type, depth));
      else {
        const again = this.#field(type, depth);
        made.push(again);
        tokens.push(...again());
      }
    }
    if (root && random.chance(0.1) && made.length > 0) tokens.push(...made[0]());
    tokens.push('}');
    return tokens;
  }

  /** Draws a field; what is returned writes it, each time with other directives and another selection. */
  #field(type, depth) {
    const { random, schema } = this;
    const root = type === schema.getSubscriptionType();
    if (this.#slips('unknownField')) return () => ['nope'];
    const all = isAbstractType(type) || isObjectType(type) ? Object.values(type.getFields()) : [];
    const fields = all.filter(({ name }) => !this.without.includes(`${type.name}.${name}`));
    const open = fields.filter((field) => (depth > 0 && this.#left > 0) || root || isLeafType(getNamedType(field.type)));
    const queryRoot = type === schema.getQueryType();
    if (open.length === 0 || (random.chance(0.08) && !root)) {
      if (queryRoot && this.#left > 0 && random.chance(0.5)) return () => this.#introspection(depth);
      const alias = random.chance(0.2) ? [`t${(this.#aliases += 1)}`, ':'] : [];
      return () => [...alias, '__typename', ...this.#directives('FIELD', root)];
    }
    // More often than not something to go down into, where there is.
    const composite = open.filter((field) => !isLeafType(getNamedType(field.type)));
    const field = random.pick(composite.length > 0 && random.chance(0.4) ? composite : open);
    const place = `${type.name}.${field.name}`;
    const aliased = random.chance(0.18);
    let head = this.#heads.get(field.name);
    if (aliased || !head || head.place !== place) {
      const outer = this.#scope;
      this.#scope = newScope();
      head = { place, tokens: this.#arguments(field, place), variables: this.#scope.variables };
      this.#scope = outer;
      if (!aliased) this.#heads.set(field.name, head);
    }
    let key = aliased ? [`a${(this.#aliases += 1)}`, ':'] : [];
    if (open.length > 1 && this.#slips('conflictingFields')) key = [random.pick(open.filter((other) => other !== field)).name, ':'];
    const leaf = isLeafType(getNamedType(field.type));
    let met = false;
    return () => {
      for (const variable of head.variables) this.#scope.variables.add(variable);
      const given = met && field.args.length > 0 && this.#slips('conflictingArguments') ? this.#arguments(field, place) : head.tokens;
      met = true;
      const tokens = [...key, field.name, ...given, ...this.#directives('FIELD', root)];
      if (leaf ? this.#slips('leafWithSelection') : !this.#slips('compositeWithoutSelection'))
        tokens.push(...(leaf ? ['{', '__typename', '}'] : this.#selection(getNamedType(field.type), depth - 1)));
      return tokens;
    };
  }

  #arguments(field, place) {
    const { random } = this;
    const tokens = [];
    for (const argument of random.shuffled(field.args)) {
      const required = isRequiredArgument(argument);
      if (required ? this.#slips('missingArgument') : random.chance(0.6)) continue;
      const copies = this.#slips('duplicateArgument') ? 2 : 1;
      for (let n = 0; n < copies; n += 1)
        tokens.push(argument.name, ':', ...this.values.literal(argument.type, place, argument.name, this.#variable(argument), this.#slips));
    }
    if (this.#slips('argumentOfNoField')) tokens.push('nope', ':', '1');
    return tokens.length > 0 ? ['(', ...tokens, ')'] : [];
  }

  /** Now and then a variable for a place in an argument or input field. */
  #variable(argument) {
    const { random } = this;
    return (type, place, name, field) => {
      if (random.chance(0.8)) return undefined;
      const at = field ?? argument;
      const whole = type === at.type;
      const declared = String(type);
      const nullable = isNonNullType(type) ? String(type.ofType) : declared;
      // A nullable variable may stand at a non-null place where either has a default.
      const falls = isNonNullType(type) && whole && at.default !== undefined && random.chance(0.4);
      let typeText = random.pick(isNonNullType(type) ? [declared] : [declared, `${declared}!`]);
      let fallback;
      if (falls || this.#slips('nullableVariable')) typeText = nullable;
      else if (random.chance(0.25)) {
        fallback = this.values.literal(type, place, name, undefined, (slip) => slip === 'wrongLiteral' && this.#slips('wrongDefault'));
        if (random.chance(0.5) || fallback[0] === 'null') typeText = nullable;
      }
      if (this.#slips('otherVariableType')) typeText = random.pick(['String', 'Int!', '[ID]', `[${typeText}]`, 'Boolean']);
      if (this.#slips('unknownVariableType')) typeText = 'Nowhere';
      if (this.#slips('variableOfOutputType')) typeText = random.pick(this.maker.composites).name;
      const known = [...this.#variables].filter(([, variable]) => variable.type === typeText).map(([known]) => known);
      const variable =
        known.length > 0 && random.chance(0.3) ? random.pick(known) : this.#newVariable(typeText, fallback, this.#given(type, typeText, place, name));
      this.#scope.variables.add(variable);
      return ['$', variable];
    };
  }

  /** What is handed over for a variable. */
  #given(type, typeText, place, name) {
    const { random } = this;
    if (this.#slips('wrongJson')) return this.values.wrongJson(type, place, name);
    const drawn = random.next();
    if (drawn < (typeText.endsWith('!') ? 0.03 : 0.25)) return undefined;
    if (drawn < (typeText.endsWith('!') ? 0.06 : 0.35)) return 'null';
    return this.values.json(type, place, name);
  }

  #newVariable(type, fallback, json) {
    const name = ['v', 'null', 'on', 'query', '_1'][this.random.below(5)] + this.#variables.size;
    this.#variables.set(name, { type, fallback, json });
    return name;
  }

  #directives(location, root) {
    const { random } = this;
    if (root) return this.#slips('skipAtRoot') ? ['@skip', '(', 'if', ':', 'false', ')'] : [];
    if (this.#slips('unknownDirective')) return ['@', 'nope'];
    if (this.#slips('directiveWithoutArgument')) return ['@', 'skip'];
    if (this.#slips('wrongDirectiveArgument')) return ['@', 'include', '(', ...random.pick([['if', ':', '"true"'], ['if', ':', 'null'], ['when', ':', 'true'], ['if', ':', 'true', 'if', ':', 'true']]), ')'];
    const twice = this.#slips('directiveTwice');
    if (!twice && random.chance(0.85)) return [];
    const names = random.chance(0.1) ? ['skip', 'include'] : [random.pick(['skip', 'include'])];
    if (twice) names.push(names[0]);
    return names.flatMap((name) => {
      const usual = name === 'include' ? 'true' : 'false';
      const condition = random.chance(0.4) ? this.#condition() : [random.chance(0.5) ? usual : random.pick(['true', 'false'])];
      return ['@', name, '(', 'if', ':', ...condition, ')'];
    });
  }

  #condition() {
    const { random } = this;
    const known = [...this.#variables].filter(([, { type }]) => type === 'Boolean!').map(([name]) => name);
    const fallback = random.chance(0.2) ? [random.pick(['true', 'false'])] : undefined;
    const nullable = fallback ? random.chance(0.5) : this.#slips('nullableVariable');
    const values = fallback && nullable ? ['true', 'false', 'null'] : ['true', 'false'];
    const json = fallback && random.chance(0.5) ? undefined : random.pick(values);
    const name = known.length > 0 && random.chance(0.5) ? random.pick(known) : this.#newVariable(nullable ? 'Boolean' : 'Boolean!', fallback, json);
    this.#scope.variables.add(name);
    return ['$', name];
  }

  /** A type that a fragment inside another may be on. */
  #typeInside(type) {
    const { random, schema } = this;
    if (this.#slips('impossibleFragment')) return random.pick(this.maker.composites);
    if (this.#slips('fragmentOnLeaf')) return random.pick(this.maker.leaves);
    if (this.#slips('fragmentOnInput')) return random.pick(this.maker.inputs);
    const near = isAbstractType(type) ? schema.getPossibleTypes(type) : type.getInterfaces();
    return random.chance(isAbstractType(type) ? 0.3 : 0.6) || near.length === 0 ? type : random.pick(near);
  }

  #inline(type, depth) {
    const on = this.random.chance(0.2) ? undefined : this.#typeInside(type);
    const inside = on ?? type;
    const condition = on ? ['on', this.#slips('fragmentOnUnknownType') ? 'Nowhere' : on.name] : [];
    const root = type === this.schema.getSubscriptionType();
    const selection = isCompositeType(inside) ? this.#selection(inside, depth) : ['{', '__typename', '}'];
    return ['...', ...condition, ...this.#directives('INLINE_FRAGMENT', root), ...selection];
  }

  #spread(type, depth) {
    const { random } = this;
    const root = type === this.schema.getSubscriptionType();
    const directives = this.#directives('FRAGMENT_SPREAD', root);
    if (this.#slips('unknownFragment')) return ['...', 'Nowhere', ...directives];
    const on = this.#typeInside(type);
    const known = [...this.#fragments].filter(([, fragment]) => fragment.type === on && fragment.done).map(([name]) => name);
    const name = known.length > 0 && random.chance(0.5) ? random.pick(known) : this.#newFragment(on, depth);
    this.#scope.spreads.add(name);
    return ['...', name, ...directives];
  }

  #newFragment(type, depth, given) {
    const name = given ?? ['F', 'fragment', 'type', 'true'][this.random.below(4)] + this.#fragments.size;
    const outer = this.#scope;
    this.#scope = newScope();
    const fragment = { type, scope: this.#scope, done: false };
    this.#fragments.set(name, fragment);
    fragment.tokens = isCompositeType(type) ? this.#selection(type, Math.min(depth, 3)) : ['{', '__typename', '}'];
    fragment.done = true;
    this.#scope = outer;
    return name;
  }

  #introspection(depth) {
    const { random, schema } = this;
    const alias = [`i${(this.#aliases += 1)}`, ':'];
    if (this.#slips('introspectionTooDeep'))
      return [...alias, ...'__schema { types { fields { type { fields { type { fields { name } } } } } } }'.split(' ')];
    const named = random.chance(0.7);
    const type = schema.getType(named ? '__Type' : '__Schema');
    const head = named ? ['__type', '(', 'name', ':', JSON.stringify(random.pick([...Object.keys(schema.getTypeMap()), 'Nowhere'])), ')'] : ['__schema'];
    return [...alias, ...head, ...this.#directives('FIELD', false), ...this.#selection(type, Math.min(depth, 2))];
  }
}

function newScope() {
  return { variables: new Set(), spreads: new Set() };
}
