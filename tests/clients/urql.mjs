// urql: a subscription through subscriptionExchange with graphql-ws.
// Arguments: the server's address, a token with the roles USER and INGEST.
import assert from 'node:assert/strict';
import { Client, cacheExchange, fetchExchange, subscriptionExchange } from '@urql/core';
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';
import { LIVE, Shop, View, done, until } from './board.mjs';

const [url, token] = process.argv.slice(2);
const authorization = `Bearer ${token}`;
const shop = new Shop(url, token);
await shop.stock(5);

const sockets = createClient({
  url: `${url.replace('http', 'ws')}/graphql/ws`,
  webSocketImpl: WebSocket,
  connectionParams: { authorization },
  retryAttempts: 0,
});
const client = new Client({
  url: `${url}/graphql`,
  preferGetMethod: false,
  fetchOptions: { headers: { authorization } },
  exchanges: [
    cacheExchange,
    fetchExchange,
    subscriptionExchange({
      forwardSubscription: (request) => ({
        subscribe: (sink) => ({ unsubscribe: sockets.subscribe({ ...request, query: request.query ?? '' }, sink) }),
      }),
    }),
  ],
});

const view = new View();
let failed;
const { unsubscribe } = client.subscription(LIVE, { top: 3 }).subscribe(({ data, error }) => {
  try {
    assert.equal(error, undefined);
    view.take(data.boardChanges);
  } catch (error) {
    failed = error;
  }
});
const shown = () => {
  if (failed) throw failed;
  return view.places;
};
await until('a snapshot came', () => shown() && view.reasons.length === 1);
assert.deepEqual(view.reasons, ['INITIAL']);
for (const product of [0, 1, 2, 3]) {
  const before = view.deltas;
  await shop.order(product, product);
  await until('a delta came', () => shown() && view.deltas > before);
}
await shop.agrees('the result shows what a query shows', shown, 3);

// The same page through the client's own query, which its cache then holds.
const RANKING = 'query($first: Int!) { ranking(first: $first) { nodes { id productId score } } }';
const page = await client.query(RANKING, { first: 3 });
assert.equal(page.error, undefined);
assert.deepEqual(page.data.ranking.nodes.map(({ productId, score }) => ({ productId, score })), shown());
assert.deepEqual(client.readQuery(RANKING, { first: 3 }).data.ranking, page.data.ranking, 'the cache holds it');
unsubscribe();
done('urql');
