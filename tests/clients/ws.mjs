// graphql-ws: every kind of operation over WebSocket, coming back after a cut, a wrong token, and a client that is slow.
// Arguments: the server's address, a token with the roles USER and INGEST.
import assert from 'node:assert/strict';
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';
import { LIVE, Shop, View, done, until } from './board.mjs';

const [url, token] = process.argv.slice(2);
const shop = new Shop(url, token);
await shop.stock(100);
const connect = (token, more = {}) =>
  createClient({
    url: `${url.replace('http', 'ws')}/graphql/ws`,
    webSocketImpl: WebSocket,
    connectionParams: { authorization: `Bearer ${token}` },
    // Nothing here is tried again unless it says so: a first failure is a failure.
    retryAttempts: 0,
    ...more,
  });
const all = async (client, query) => {
  const results = [];
  for await (const result of client.iterate({ query })) results.push(result);
  return results;
};

// A query, and a mutation: one result, then the end.
const client = connect(token);
assert.deepEqual(await all(client, '{ viewer { id } }'), [{ data: { viewer: { id: 'ann' } } }]);
const like = 'mutation { setLike(input: { productId: "p0", liked: true }) { liked } }';
assert.deepEqual(await all(client, like), [{ data: { setLike: { liked: true } } }]);

// What can't be run is an error of that operation alone.
await assert.rejects(all(client, '{ nothing }'), (errors) => errors[0].extensions.code === 'BAD_USER_INPUT');
assert.deepEqual(await all(client, '{ __typename }'), [{ data: { __typename: 'Query' } }]);

// A subscription, which ends when its reader does.
{
  const view = new View();
  const events = client.iterate({ query: LIVE });
  view.take((await events.next()).value.data.boardChanges);
  assert.deepEqual(view.reasons, ['INITIAL']);
  await shop.order(1, 2);
  while (!view.places.some((place) => place.productId === 'p2'))
    view.take((await events.next()).value.data.boardChanges);
  assert.ok(view.deltas > 0, 'a delta came');
  await events.return();
}

// Three cuts, during which the board moves: the client connects again by itself and hands over where it stood.
{
  const view = new View();
  let socket;
  const cuts = connect(token, {
    retryAttempts: 1,
    shouldRetry: () => true,
    retryWait: () => shop.order(3, 4),
    on: { opened: (opened) => (socket = opened) },
  });
  // The client sends what stands here whenever it subscribes.
  const variables = {};
  let failed;
  cuts.subscribe(
    { query: LIVE, variables },
    {
      next({ data }) {
        try {
          view.take(data.boardChanges);
          variables.resume = view.position;
        } catch (error) {
          failed = error;
        }
      },
      error: (error) => (failed = error),
      complete() {},
    },
  );
  const shown = () => {
    if (failed) throw failed;
    return view.places;
  };
  await shop.agrees('the first view is whole', shown);
  for (let cut = 1; cut <= 3; cut += 1) {
    const [before, deltas] = [socket, view.deltas];
    before.terminate();
    await until('the client is back', () => shown() && socket !== before && view.deltas > deltas);
    await shop.order(5);
    await shop.agrees(`the view is whole after cut ${cut}`, shown);
  }
  assert.deepEqual(view.reasons, ['INITIAL'], 'what was missed came as changes');
  await cuts.dispose();
}

// A wrong token.
const forbidden = (closed) => closed.code === 4403;
await assert.rejects(all(connect('nonsense'), '{ __typename }'), forbidden);

// A client that takes nothing for a second again and again, while whole boards change: it is told that it fell behind, or
// its chain is whole; and what it shows in the end is right.
{
  const views = Array.from({ length: 10 }, () => new View());
  let socket;
  let failed;
  const slow = connect(token, { on: { opened: (opened) => (socket = opened) } });
  for (const view of views)
    slow.subscribe(
      { query: LIVE, variables: { top: 100 } },
      {
        next({ data }) {
          try {
            view.take(data.boardChanges);
          } catch (error) {
            failed = error;
          }
        },
        error: (error) => (failed = error),
        complete() {},
      },
    );
  await until('all have begun', () => views.every((view) => view.reasons.length > 0));
  const everything = Array.from({ length: 100 }, (_, n) => n);
  for (let pause = 0; pause < 3; pause += 1) {
    socket.pause();
    const resumed = Date.now() + 1_000;
    while (Date.now() < resumed) await shop.order(...everything);
    socket.resume();
    await shop.order(...everything);
  }
  for (const view of views)
    await shop.agrees('the slow view is whole', () => {
      if (failed) throw failed;
      return view.places;
    }, 100);
  const reasons = new Set(views.flatMap((view) => view.reasons.slice(1)));
  assert.ok([...reasons].every((reason) => reason === 'LAGGED'), `told because of ${[...reasons]}`);
}
done('graphql-ws');
