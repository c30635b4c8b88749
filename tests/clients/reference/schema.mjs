// The schema as graphql-js has it, with our scalars: what they take as input is decided where literals and variables are.
import { readFileSync } from 'node:fs';
import { Kind, buildSchema, isLeafType } from 'graphql-17';

/** Stands for a value that time, and not the document, decides: any value of its place equals it. */
export const ANY = '\u0000any';

const INSTANT = /^\d{4}-(0\d|1[0-2])-([0-2]\d|3[01])[Tt]([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/;

const TEXTS = { DateTime: (text) => INSTANT.test(text), Decimal: () => true, Duration: () => true };

export function readSchema() {
  const schema = buildSchema(readFileSync(new URL('../../../schema.graphql', import.meta.url), 'utf8'));
  for (const [name, takes] of Object.entries(TEXTS)) {
    const coerce = (value) => {
      if (typeof value === 'string' && takes(value)) return value;
      throw new Error(`not a ${name}`);
    };
    Object.assign(schema.getType(name), {
      coerceInputValue: coerce,
      coerceInputLiteral: (node) => (node.kind === Kind.STRING ? coerce(node.value) : undefined),
    });
  }
  // What the server has answered is answered again as it is, or as what stands for it.
  for (const type of Object.values(schema.getTypeMap()))
    if (isLeafType(type) && !type.name.startsWith('__')) type.coerceOutputValue = (value) => value;
  return schema;
}
