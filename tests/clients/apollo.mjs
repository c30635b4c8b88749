// Apollo Client: a query over HTTP that a subscription over graphql-ws keeps up to date, in the client's own cache.
// Arguments: the server's address, a token with the roles USER and INGEST.
import assert from 'node:assert/strict';
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } from '@apollo/client';
import { GraphQLWsLink } from '@apollo/client/link/subscriptions';
import { createClient } from 'graphql-ws';
import { OperationTypeNode } from 'graphql';
import WebSocket from 'ws';
import { LIVE, Shop, View, done, until } from './board.mjs';

const [url, token] = process.argv.slice(2);
const authorization = `Bearer ${token}`;
const shop = new Shop(url, token);
await shop.stock(5);
await shop.order(0, 1);
await until('the board is filled', async () => (await shop.ranking()).length === 2);

const live = new GraphQLWsLink(
  createClient({
    url: `${url.replace('http', 'ws')}/graphql/ws`,
    webSocketImpl: WebSocket,
    connectionParams: { authorization },
    retryAttempts: 0,
  }),
);
const http = new HttpLink({ uri: `${url}/graphql`, headers: { authorization } });
const client = new ApolloClient({
  link: ApolloLink.split(({ operationType }) => operationType === OperationTypeNode.SUBSCRIPTION, live, http),
  cache: new InMemoryCache({
    possibleTypes: { BoardEvent: ['BoardSnapshot', 'BoardDelta', 'BoardHeartbeat'] },
  }),
});

const RANKING = gql`
  query Ranking { ranking(first: 10) { nodes { id rank productId score } period { id position } } }`;
const page = client.watchQuery({ query: RANKING });
let shown;
page.subscribe(({ data, error }) => {
  assert.equal(error, undefined);
  if (data) shown = data.ranking.nodes;
});
await until('the page is read', () => shown?.length === 2);

// A snapshot, then deltas, each merged into the page as the schema says.
const view = new View();
page.subscribeToMore({
  document: gql(LIVE),
  updateQuery(before, { subscriptionData }) {
    view.take(subscriptionData.data.boardChanges);
    const period = before.ranking.period;
    const nodes = view.places.map((place, index) => ({
      __typename: 'RankingEntry',
      id: `${period.id}:${place.productId}`,
      rank: index + 1,
      ...place,
    }));
    return { ...before, ranking: { ...before.ranking, nodes } };
  },
  onError: (error) => assert.fail(error),
});
await until('a snapshot came', () => view.reasons.length === 1);
assert.deepEqual(view.reasons, ['INITIAL']);
for (const product of [4, 3, 2]) {
  const before = view.deltas;
  await shop.order(product, product);
  await until('a delta came', () => view.deltas > before);
}
const places = (nodes) => nodes.map(({ productId, score }) => ({ productId, score }));
await shop.agrees('the page shows what a query shows', () => places(shown));
const cached = client.readQuery({ query: RANKING });
assert.deepEqual(places(cached.ranking.nodes), places(shown), 'the cache holds it');
assert.equal(cached.ranking.nodes.length, 5);

// Products of events are in the cache by their ids, so that every other part of a page sees them.
const product = client.readFragment({ id: 'Product:p4', fragment: gql`fragment Name on Product { name }` });
assert.equal(product.name, 'Product 4');
done('Apollo Client');
