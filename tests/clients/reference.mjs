// Documents at random, answered as graphql-js 17 answers them: the same verdict, data with its keys in the same order, and
// paths of errors. What graphql-js executes over is the server itself: see reference/source.mjs.
// Arguments: the server's address; how many documents; as JSON, the headers of somebody who may do everything, and of whom
// documents are run for.
// SEED in the environment makes a run again.
import assert from 'node:assert/strict';
import { fill } from './reference/catalogue.mjs';
import { CONCURRENT, Client } from './reference/client.mjs';
import { accepted, compare } from './reference/compare.mjs';
import { Documents } from './reference/documents.mjs';
import { Random } from './reference/random.mjs';
import { readSchema } from './reference/schema.mjs';
import { Source } from './reference/source.mjs';

const [url, documentCount, everything, own] = process.argv.slice(2);
const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
const count = Number(documentCount);
const SHOWN_MAX = 5;
/** Says nothing until a rule is made. */
const SILENT = ['Subscription.weightsChanged'];

const schema = readSchema();
const client = new Client(url, JSON.parse(own));
const known = await fill(client.as(JSON.parse(everything)), client);
const documents = new Documents(schema, new Random(seed), known);
const isIntrospection = (key) => /^(i\d+|__schema|__type)$/.test(key);
const differing = [];
const seen = {};

/** What graphql-js answers. `later`: whether fields take their time, which decides what is met before a null spreads. */
async function reference(source, { query, variables, operationName }, later = false) {
  const document = accepted(schema, query);
  if (!document) return { errors: [{ message: 'refused' }] };
  const answer = await source.execute(document, JSON.parse(variables ?? '{}'), operationName, later);
  return JSON.parse(JSON.stringify(answer));
}

/** Sends a document; how the answer differs from graphql-js's, if it does. */
async function check(made, send, source) {
  const actual = await send(made);
  const expected = await reference(source, made);
  // A subscription that can't begin has no events: it is refused. A condition is looked at for each event.
  const isOfEvent = (error) => /^Argument "@(skip|include)\(/.test(error.message);
  if (made.kind === 'subscription' && expected.data === null && expected.errors[0].path.length === 1 && !isOfEvent(expected.errors[0]))
    delete expected.data;
  let differs = compare(expected, actual, isIntrospection);
  if (differs === 'paths of errors') {
    if (!compare(await reference(source, made, true), actual, isIntrospection)) differs = undefined;
  }
  return { made, differs, actual, expected };
}

function take(phase, { made, differs, actual, expected }) {
  const counted = (seen[phase] ??= { executed: 0, withErrors: 0, refused: 0, beyondLimits: 0 });
  if (actual.data === undefined && actual.errors?.[0]?.extensions?.code === 'LIMIT_EXCEEDED') {
    counted.beyondLimits += 1;
    return;
  }
  if (differs) differing.push({ phase, made, differs, actual, expected });
  if (expected.data === undefined) counted.refused += 1;
  else counted.executed += 1;
  if (expected.data !== undefined && expected.errors) counted.withErrors += 1;
}

/** Makes documents and checks them, several at once. `sends`: the ways to send one, by name. */
async function phase(make, count, sends, asked) {
  const fresh = () => new Source(schema, asked);
  let source = fresh();
  let left = count;
  const work = async () => {
    while ((left -= 1) >= 0) {
      const made = make();
      for (const [name, send] of Object.entries(sends)) {
        let result = await check(made, send, source);
        if (result.differs) {
          // What has changed by itself meanwhile, such as a new day, is no difference.
          source = fresh();
          result = await check(made, send, source);
        }
        take(name, result);
      }
    }
  };
  await Promise.all(Array.from({ length: CONCURRENT }, work));
}

async function queries() {
  const post = (operation) => client.post(operation);
  await phase(() => documents.make('query'), count, { queries: post }, post);
}

/** A document that asks for some fields only where it is refused. */
function mostlyWithout(kind, fields) {
  const everything = documents.make(kind);
  const asks = fields.some((field) => everything.query.includes(field.split('.')[1]));
  return asks && accepted(schema, everything.query) ? documents.make(kind, fields) : everything;
}

/** The first event of each subscription. */
async function subscriptions() {
  const heard = (operation) => client.heard(operation);
  const asked = async (operation) => {
    if (!operation.query.startsWith('subscription')) return client.post(operation);
    const answer = await heard(operation);
    const [path] = /\w+(?=[ (])/.exec(operation.query.split('on Subscription {')[1]);
    return answer.data === undefined ? { data: null, errors: [{ ...answer.errors[0], path: [path] }] } : answer;
  };
  const ways = { 'over WebSocket': heard, 'as event stream': (operation) => client.streamed(operation) };
  await phase(() => mostlyWithout('subscription', SILENT), count / 20, ways, asked);
}

/** One after another, each by a user of its own, so that both servers stay in the same state as long as both do the same. */
console.log(`seed ${seed}`);
await queries();
await subscriptions();

console.log(seen);
const shortest = differing.sort((a, b) => a.made.query.length - b.made.query.length);
for (const kind of new Set(differing.map(({ differs }) => differs))) {
  const these = shortest.filter(({ differs }) => differs === kind);
  console.log(`\n${these.length} differ in ${kind}; the shortest:`);
  for (const { phase, made, actual, expected } of these.slice(0, SHOWN_MAX))
    console.log(`${phase}: ${JSON.stringify(made)}\n  graphql-js: ${JSON.stringify(expected)}\n  server:     ${JSON.stringify(actual)}\n`);
}
assert.equal(differing.length, 0, `${differing.length} answers are not those of graphql-js`);
for (const [name, { executed, withErrors, refused, beyondLimits }] of Object.entries(seen)) {
  const all = executed + refused + beyondLimits;
  // No field of an event fails where the whole subscription does not.
  const failing = name === 'queries' ? all / 20 : 0;
  const shows = executed > all / 5 && refused > all / 10 && withErrors >= failing && beyondLimits < all / 50;
  assert.ok(shows, `${name} show little`);
}
process.exit(0);
