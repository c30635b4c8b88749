// A shop with enough in it that every field has something to say, and what is sensible for an argument.
import assert from 'node:assert/strict';
import { done } from './client.mjs';

const CATEGORIES = ['cups', 'cups', 'lamps', null, 'lamps', 'cups'];

/** Fills a server. `ask` is somebody who may do everything, `own` whom documents are run for. */
export async function fill(ask, own) {
  const products = CATEGORIES.map((category, n) => ({
    id: `p${n}`, name: `Product ${n}`, category, brand: n % 2 ? 'Acme' : null, imageUrl: n % 3 ? null : `https://shop.test/${n}.png`,
    ...(n % 2 ? { price: `${n}.50`, currency: 'GBP' } : {}),
  }));
  await done(ask, 'mutation($products: [ProductInput!]!) { upsertProducts(input: { products: $products }) { upserted } }', { products });
  await done(ask, 'mutation { saveBoard(input: { id: "all", title: "For ever", window: ALL_TIME, category: "cups" }) { board { id } } }');
  // Its points change by themselves, with the time.
  await done(ask, 'mutation { deleteBoard(input: { id: "trending", note: "not now" }) { board { id } } }');
  const events = [5, 0, 3, 1, 2].map((n, place) => ({ id: `e${n}`, signal: place % 2 ? 'ORDER' : 'CART', productId: `p${n}`, count: 10 - place }));
  await done(ask, 'mutation($events: [EventInput!]!) { recordEvents(input: { events: $events }) { recorded } }', { events });
  for (const id of ['p0', 'p1', 'p4'])
    await done(own, 'mutation($id: ID!) { setLike(input: { productId: $id, liked: true }) { liked } }', { id });
  const shown = '{ ranking(first: 2) { nodes { productId } pageInfo { endCursor } period { key position isCurrent: board { isCurrent } } } viewer { likes(first: 1) { pageInfo { endCursor } } } board(id: "all") { isCurrent } }';
  for (const deadline = Date.now() + 30_000; ; await new Promise((go) => setTimeout(go, 50))) {
    const { ranking, viewer, board } = await done(own, shown);
    if (ranking.nodes.length === 2 && board.isCurrent) return known({ period: ranking.period, cursors: [ranking.pageInfo.endCursor, viewer.likes.pageInfo.endCursor] });
    assert.ok(Date.now() < deadline, 'the boards show what was recorded');
  }
}

/** Sensible values for an argument or input field, by its place or its name alone. Of several products any may be told of
 * first, and who resumes from the present is told nothing. */
function known({ period, cursors }) {
  const product = ['p0', 'p1', 'p2', 'p5', 'p0', 'nope', 'not an id!'];
  const board = ['daily', 'all', 'all', 'nope', 'Not An Id'];
  const values = {
    'Query.board': board, board, 'BoardInput.id': board,
    'Query.product': product, productId: product, productIds: ['p0'], ids: product.slice(0, 6), 'ProductInput.id': product,
    first: [1, 2, 3, 2, 1, 0, 101, -1], fromRank: [1, 2, 3, 0, 1000000], radius: [0, 1, 2, -1, 51], top: [1, 3, 20, 20, 0, 101],
    maxRate: [1, 10, 0.5, 10, 0, 1000], after: [...cursors, 'no cursor'], key: [period.key, '2026-01-01', ''], resume: ['no position'],
    timeZone: ['UTC', 'Europe/London', 'Nowhere'], count: [1, 2, 3, 0], liked: [true, false], hours: [0, 12, 23, 24], weight: [0.5, 1, 10, -1],
  };
  return (place, name) => values[place] ?? values[name];
}
