// graphql-sse in its "distinct connections mode", against a server that wants tokens.
// Arguments: the server's address, a token with the roles USER and INGEST.
import assert from 'node:assert/strict';
import { createClient } from 'graphql-sse';

const [url, token] = process.argv.slice(2);
// Nothing here is tried again: a first failure is a failure.
const client = (authorization) =>
  createClient({ url: `${url}/graphql/stream`, retryAttempts: 0, headers: { authorization } });
const signedIn = client(`Bearer ${token}`);
const all = async (client, query) => {
  const results = [];
  for await (const result of client.iterate({ query })) results.push(result);
  return results;
};
/** What the server answers instead of a stream. */
const refusal = async (client, query) => {
  try {
    await all(client, query);
  } catch (error) {
    return { status: error.response?.status, body: await error.response?.json() };
  }
  assert.fail('the stream was opened');
};

// A query, and a mutation: one result, then the end.
assert.deepEqual(await all(signedIn, '{ viewer { id } }'), [{ data: { viewer: { id: 'ann' } } }]);
const products = '[{ id: "p0", name: "Mug" }]';
const stocked = await all(signedIn, `mutation { upsertProducts(input: { products: ${products} }) { upserted } }`);
assert.deepEqual(stocked, [{ data: { upsertProducts: { upserted: 1 } } }]);

// A subscription: a snapshot, then what changes.
const live = `subscription { boardChanges { seq
  ... on BoardSnapshot { entries { productId } }
  ... on BoardDelta { changes { kind productId toRank } } } }`;
const events = signedIn.iterate({ query: live });
const first = (await events.next()).value;
assert.deepEqual(first.data.boardChanges.entries, []);
const like = 'mutation { setLike(input: { productId: "p0", liked: true }) { liked } }';
assert.deepEqual(await all(signedIn, like), [{ data: { setLike: { liked: true } } }]);
for (let event = first; ; event = (await events.next()).value) {
  const { changes, entries } = event.data.boardChanges;
  if (changes?.some((change) => change.productId === 'p0' && change.toRank === 1)) break;
  if (entries?.some((entry) => entry.productId === 'p0')) break;
}
await events.return();

// Documents that can't run say why, whatever they would have done.
for (const query of ['{ nothing }', '{', 'subscription { nothing }', 'subscription { boardChanges(top: 0) { seq } }']) {
  const results = await all(signedIn, query);
  assert.equal(results.length, 1, query);
  assert.equal(results[0].errors[0].extensions.code, 'BAD_USER_INPUT', query);
}

// A wrong token is refused before there is a stream.
const wrong = await refusal(client('Bearer nonsense'), '{ __typename }');
assert.equal(wrong.status, 401);
assert.equal(wrong.body.errors[0].extensions.code, 'UNAUTHENTICATED');
console.log('graphql-sse: all as it should be');
