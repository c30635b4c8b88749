// What graphql-js executes over: the server itself, asked in documents so plain that no rule of execution can matter, one
// field at a time. So both execute over the same data, and only what is done with a document is compared.
import { execute, getNamedType, isAbstractType, isLeafType } from 'graphql-17';
import { ANY } from './schema.mjs';

/** What changes by itself, by type and field. */
const CHANGES = new Set([
  'Freshness.asOf', 'EngineStatus.usedBytes', 'EngineStatus.up', 'LedgerStatus.up', 'SystemStatus.pending', 'SystemStatus.oldestPendingMs', 'SystemStatus.projectionLagMs',
  'SystemStatus.subscriptions', 'BoardSnapshot.at', 'BoardDelta.at', 'BoardHeartbeat.at', 'ProductRankEvent.at', 'LikeEvent.at', 'LikePayload.at', 'LikePayload.durability',
  'RecordEventsPayload.durability', 'Board.isCurrent', 'LikeState.viewerLikedAt', 'Product.createdAt', 'ProductEdge.likedAt',
  'VerifyReport.checked', 'Period.position', 'ProductConnection.cursor', 'PageInfo.startCursor', 'PageInfo.endCursor', 'ProductEdge.cursor',
]);

/** Objects that can be asked for by themselves, wherever they were met. */
const ADDRESSES = {
  Product: ({ id }) => id !== undefined && [{ on: 'Query', field: 'product', args: { id } }],
  Board: ({ id }) => id !== undefined && [{ on: 'Query', field: 'board', args: { id } }],
  Viewer: () => [{ on: 'Query', field: 'viewer', args: {} }],
  Period: ({ key, board }) =>
    key !== undefined && board && [{ on: 'Query', field: 'board', args: { id: board.id } }, { on: 'Board', field: 'period', args: { key } }],
};

/** Nothing further than this is asked for at once, which is deeper than any event or payload goes. */
const DEPTH_MAX = 6;

export class Source {
  /** Answers by the question. */
  #known = new Map();

  /** `ask` runs an operation on the server. */
  constructor(schema, ask) {
    Object.assign(this, { schema, ask });
  }

  /** What graphql-js answers. With `later`, each field is resolved by a promise. */
  async execute(document, variableValues, operationName, later = false) {
    for (;;) {
      const missing = new Map();
      const fieldResolver = later
        ? async (source, args, _, info) => this.#resolve(source, args, info, missing)
        : (source, args, _, info) => this.#resolve(source, args, info, missing);
      const typeResolver = (value) => value.type;
      const answer = await execute({ schema: this.schema, document, variableValues, operationName, fieldResolver, typeResolver });
      const questions = [...missing.values()];
      if (questions.length === 0) return answer;
      await Promise.all(questions.map((question) => this.#fetch(question)));
    }
  }

  #resolve(source, args, info, missing) {
    const { fieldName, parentType, returnType } = info;
    const parent = source ?? { type: parentType.name, chain: [], fields: {} };
    const type = getNamedType(returnType);
    const field = this.schema.getField(parentType, fieldName);
    const value =
      field.args.length === 0 && fieldName in parent.fields
        ? this.#wrap(parent.fields[fieldName], type, [...parent.chain, { on: parent.type, field: fieldName, args: {} }])
        : this.#look([...parent.chain, { on: parent.type, field: fieldName, args: { ...args } }], type, missing);
    return value !== null && CHANGES.has(`${parentType.name}.${fieldName}`) ? ANY : value;
  }

  /** What is known at the end of a chain of fields and places in lists. What is not goes to `missing`. */
  #look(chain, type, missing) {
    const question = chain.filter((step) => step.field);
    const key = JSON.stringify(question);
    const answer = this.#known.get(key);
    if (!answer) {
      missing.set(key, { key, question, type });
      throw new Error('not known yet');
    }
    let value = answer.data;
    const path = [];
    for (const step of chain) {
      path.push(step.field ?? step.index);
      value = value?.[path.at(-1)] ?? null;
    }
    const failed = value === null && answer.errors?.find((error) => path.every((part, n) => error.path?.[n] === part));
    if (failed) throw new Error(failed.message);
    return this.#wrap(value, type, chain);
  }

  #wrap(value, type, chain) {
    if (value === null || isLeafType(type)) return value;
    if (Array.isArray(value)) return value.map((item, index) => this.#wrap(item, type, [...chain, { index }]));
    const { __typename, ...fields } = value;
    return { type: __typename, chain: (!isAbstractType(type) && ADDRESSES[__typename]?.(fields)) || chain, fields };
  }

  async #fetch({ key, question, type }) {
    let answer = await this.#ask(question, this.#selection(type, DEPTH_MAX));
    // Where a field below fails, or it is too much at once, each is asked for by itself.
    const below = (error) => error.path === undefined || error.path.filter((part) => typeof part === 'string').length > question.length;
    if (answer.errors?.some(below)) answer = await this.#ask(question, '{ __typename }');
    if (answer.data === undefined) throw new Error(`refused: ${JSON.stringify({ question, answer })}`);
    this.#known.set(key, answer);
  }

  #ask(question, selection) {
    const variables = {};
    const declared = [];
    let query = selection;
    for (const { on, field, args } of [...question].reverse()) {
      const given = Object.entries(args).map(([name, value]) => {
        const variable = `v${declared.length}`;
        const definition = this.schema.getField(this.schema.getType(on), field).args.find((argument) => argument.name === name);
        declared.push(`$${variable}: ${definition.type}`);
        variables[variable] = value;
        return `${name}: $${variable}`;
      });
      query = `{ ... on ${on} { ${field}${given.length > 0 ? `(${given.join(', ')})` : ''} ${query} } }`;
    }
    const kind = question[0].on.toLowerCase();
    return this.ask({ query: `${kind}${declared.length > 0 ? `(${declared.join(', ')})` : ''} ${query}`, variables: JSON.stringify(variables) });
  }

  /** Everything below that has no arguments, down to what has an address; of an abstract type only which one it is. */
  #selection(type, depth) {
    if (isLeafType(type)) return '';
    if (isAbstractType(type) && type.name !== 'BoardEvent') return '{ __typename }';
    const types = isAbstractType(type) ? this.schema.getPossibleTypes(type) : [type];
    const parts = types.map((one) => {
      const fields = Object.values(one.getFields()).filter((field) => field.args.length === 0);
      const inside = fields.map((field) => {
        const named = getNamedType(field.type);
        if (isLeafType(named)) return field.name;
        if (named.name in ADDRESSES) return ADDRESSES[named.name] === ADDRESSES.Period ? `${field.name} { __typename key board { __typename id } }` : `${field.name} { __typename ${'id' in named.getFields() ? 'id' : ''} }`;
        return depth > 0 ? `${field.name} ${this.#selection(named, depth - 1)}` : '';
      });
      return types.length > 1 ? `... on ${one.name} { ${inside.join(' ')} }` : inside.join(' ');
    });
    return `{ __typename ${parts.join(' ')} }`;
  }
}
