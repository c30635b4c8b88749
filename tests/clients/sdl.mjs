// graphql-js: schema.graphql is a schema to it, and to the tools that are made with it. Argument: the file.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { buildSchema, isInterfaceType, lexicographicSortSchema, printSchema, validateSchema } from 'graphql';
import { done } from './board.mjs';

const schema = buildSchema(readFileSync(process.argv[2], 'utf8'));
assert.deepEqual(validateSchema(schema).map(String), []);
// It comes through printing and sorting as what it was.
const sorted = printSchema(lexicographicSortSchema(schema));
assert.equal(printSchema(lexicographicSortSchema(buildSchema(sorted))), sorted);
// Whatever implements an interface says so, which is where clients' tools read it.
for (const name of ['Node', 'BoardEvent']) {
  const type = schema.getType(name);
  assert.ok(isInterfaceType(type) && schema.getPossibleTypes(type).length >= 3, name);
}
done('graphql-js');
