// Clients as they are, without any settings about reconnecting: all come back when a server stops, and when a token expires.
// Arguments: the address and process of one server, the address of another, and the secret that they know tokens by.
import { createHmac } from 'node:crypto';
import { EventSource } from 'eventsource';
import { createClient as createStream } from 'graphql-sse';
import { createClient as createSocket } from 'graphql-ws';
import WebSocket from 'ws';
import { Shop, View, done, until } from './board.mjs';
import { Proxy } from './proxy.mjs';

const [url, pid, otherUrl, secret] = process.argv.slice(2);

const text = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
/** A token that holds for so long; servers allow for half a minute more, so that a number below 0 is what tests soon. */
const sign = (seconds, roles = ['USER']) => {
  const claims = { sub: 'ann', exp: Math.floor(Date.now() / 1_000) + seconds, roles };
  const signed = `${text({ alg: 'HS256', typ: 'JWT' })}.${text(claims)}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
};

const shop = new Shop(otherUrl, sign(3_600, ['USER', 'INGEST']));
await shop.stock(6);
await shop.order(0, 1, 2);
await until('the board is filled', async () => (await shop.ranking()).length === 3);
const proxy = await Proxy.to(url);

const query = `subscription { boardChanges(top: 10) { __typename seq
  ... on BoardSnapshot { reason entries { productId score } }
  ... on BoardDelta { fromSeq changes { productId toRank score } } } }`;

/** Clients by name: each begins with what it does with a token and an event, and says how to end it. */
const clients = {
  EventSource(authorization, next, over) {
    const source = new EventSource(`${proxy.url}/graphql/stream?query=${encodeURIComponent(query)}`, {
      fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, authorization: authorization() } }),
    });
    source.addEventListener('next', ({ data }) => next(JSON.parse(data)));
    source.addEventListener('complete', () => over('complete'));
    source.addEventListener('error', ({ code }) => code && over(code));
    return () => source.close();
  },
  'graphql-sse'(authorization, next, over) {
    const headers = () => ({ authorization: authorization() });
    const client = createStream({ url: `${proxy.url}/graphql/stream`, headers });
    return client.subscribe({ query }, { next, error: over, complete: () => over('complete') });
  },
  'graphql-ws'(authorization, next, over) {
    const connectionParams = () => ({ authorization: authorization() });
    const wsUrl = `${proxy.url.replace('http', 'ws')}/graphql/ws`;
    const client = createSocket({ url: wsUrl, webSocketImpl: WebSocket, connectionParams });
    return client.subscribe({ query }, { next, error: over, complete: () => over('complete') });
  },
};

const followed = (validFor) =>
  Object.entries(clients).map(([name, begin]) => {
    const one = { name, view: new View(), begun: 0 };
    const authorization = () => {
      one.begun += 1;
      return `Bearer ${sign(validFor(one.begun))}`;
    };
    const ended = (why) => {
      if (!one.isClosed) one.failed = new Error(`${name} was ended: ${JSON.stringify(why)} ${why}`);
    };
    const next = ({ data }) => {
      try {
        one.view.take(data.boardChanges);
      } catch (error) {
        one.failed = error;
      }
    };
    const end = begin(authorization, next, ended);
    one.close = () => {
      one.isClosed = true;
      end();
    };
    one.shown = () => {
      if (one.failed) throw one.failed;
      return one.view.places;
    };
    return one;
  });

// The server stops, and another one is there.
{
  const all = followed(() => 3_600);
  for (const { name, shown } of all) await shop.agrees(`${name} shows the board`, shown);
  const begun = all.map((one) => one.begun);
  proxy.target = otherUrl;
  process.kill(Number(pid), 'SIGTERM');
  await shop.order(3, 4);
  for (const [n, one] of all.entries()) {
    await until(`${one.name} is back`, () => one.shown() && one.begun > begun[n]);
    await shop.agrees(`${one.name} shows the board after the stop`, one.shown);
    one.close();
  }
}

// The first token expires, and the next one holds.
{
  const all = followed((n) => (n === 1 ? -26 : 3_600));
  for (const { name, shown } of all) await shop.agrees(`${name} shows the board`, shown);
  for (const one of all) await until(`${one.name} has come back with another token`, () => one.shown() && one.begun > 1);
  await shop.order(5);
  for (const one of all) {
    await shop.agrees(`${one.name} shows the board after its token`, one.shown);
    one.close();
  }
}
done('all clients');
