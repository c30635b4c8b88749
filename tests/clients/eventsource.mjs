// EventSource, as browsers have it: through a proxy that compresses, and back after cuts by itself.
// Arguments: the server's address, a token with the roles USER and INGEST.
import assert from 'node:assert/strict';
import http from 'node:http';
import { once } from 'node:events';
import compression from 'compression';
import { EventSource } from 'eventsource';
import { Shop, View, done, until } from './board.mjs';
import { Proxy } from './proxy.mjs';

const [url, token] = process.argv.slice(2);
const shop = new Shop(url, token);
await shop.stock(8);
await shop.order(0, 1, 2);
await until('the board is filled', async () => (await shop.ranking()).length === 3);

// Nothing about positions: the transport knows them.
const query = `subscription { boardChanges(top: 10) { __typename seq
  ... on BoardSnapshot { reason entries { productId score } }
  ... on BoardDelta { fromSeq changes { productId toRank score } } } }`;

/** The responses' headers, as they came. */
const opened = [];
const open = (base) =>
  new EventSource(`${base}/graphql/stream?query=${encodeURIComponent(query)}`, {
    fetch: async (input, init) => {
      const headers = { ...init.headers, authorization: `Bearer ${token}`, 'accept-encoding': 'gzip' };
      const response = await fetch(input, { ...init, headers });
      opened.push(response.headers);
      return response;
    },
  });
/** Follows a stream; throws where what came was wrong. */
const follow = (source) => {
  const view = new View();
  let failed;
  source.addEventListener('next', ({ data, lastEventId }) => {
    try {
      view.take(JSON.parse(data).data.boardChanges);
      assert.equal(lastEventId.split('-')[1], String(view.seq), 'ids are positions');
    } catch (error) {
      failed = error;
    }
  });
  source.addEventListener('complete', () => (failed = new Error('nothing is complete here')));
  const shown = () => {
    if (failed) throw failed;
    return view.places;
  };
  return { view, shown };
};

// Through a proxy that would collect what it compresses.
{
  const compress = compression();
  const server = http.createServer((request, response) =>
    compress(request, response, () => {
      const { hostname, port } = new URL(url);
      const { method, headers, url: path } = request;
      const onward = http.request({ hostname, port, method, headers, path }, (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        answer.pipe(response);
      });
      onward.on('error', () => response.destroy());
      request.pipe(onward);
    }),
  );
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const through = `http://127.0.0.1:${server.address().port}`;
  const plain = await fetch(`${through}/graphql?query={__schema{types{name,description}}}`, {
    headers: { authorization: `Bearer ${token}` },
  });
  assert.equal(plain.headers.get('content-encoding'), 'gzip', 'the proxy compresses');
  await plain.text();
  const source = open(through);
  const { shown } = follow(source);
  await shop.agrees('a snapshot comes through', shown);
  for (const product of [3, 4, 3]) {
    await shop.order(product);
    await shop.agrees('changes come at once', shown);
  }
  assert.equal(opened.at(-1).get('content-encoding'), null);
  source.close();
}

// Three cuts, during which the board moves: what was missed comes as changes.
{
  const proxy = await Proxy.to(url);
  const source = open(proxy.url);
  const { view, shown } = follow(source);
  await shop.agrees('the first view is whole', shown);
  for (let cut = 1; cut <= 3; cut += 1) {
    const [before, deltas] = [opened.length, view.deltas];
    proxy.cut();
    await shop.order(5, 6);
    await until('the stream is back', () => shown() && opened.length > before && view.deltas > deltas);
    await shop.order(7);
    await shop.agrees(`the view is whole after cut ${cut}`, shown);
  }
  assert.deepEqual(view.reasons, ['INITIAL'], 'what was missed came as changes');
  source.close();
}
done('EventSource');
