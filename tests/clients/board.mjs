// What a client shows of a live board, kept by applying events as the schema says; and a shop that makes boards move.
import assert from 'node:assert/strict';

export const LIVE = `subscription Live($top: Int! = 10, $resume: String) {
  boardChanges(top: $top, resume: $resume, resumeWith: DELTA) {
    __typename position seq
    ... on BoardSnapshot { reason totalCount entries { id rank productId score product { id name } } }
    ... on BoardDelta { fromSeq totalCount changes { kind productId fromRank toRank score product { id name } } } } }`;

/** Nothing that is awaited here takes longer on a loaded machine. */
const TIME_MAX_MS = 30_000;

export class View {
  places = [];
  reasons = [];
  deltas = 0;

  /** Applies one event; a hole in the chain is a failure. */
  take(event) {
    switch (event.__typename) {
      case 'BoardSnapshot':
        this.reasons.push(event.reason);
        this.places = event.entries.map(({ productId, score }) => ({ productId, score }));
        break;
      case 'BoardDelta': {
        assert.equal(event.fromSeq, this.seq, 'a gap in what was sent');
        this.deltas += 1;
        const changed = new Set(event.changes.map((change) => change.productId));
        this.places = this.places.filter((place) => !changed.has(place.productId));
        for (const { productId, toRank, score } of event.changes)
          if (toRank !== null) this.places.splice(toRank - 1, 0, { productId, score });
        break;
      }
      case 'BoardHeartbeat':
        assert.equal(event.seq, this.seq, 'a heartbeat says that nothing has changed');
        break;
      default:
        assert.fail(`an event of an unknown kind: ${event.__typename}`);
    }
    this.seq = event.seq;
    this.position = event.position;
  }
}

/** A shop with a token that may record events. */
export class Shop {
  #sent = 0;

  constructor(url, token) {
    this.url = url;
    this.token = token;
  }

  async graphql(query, variables = {}) {
    const response = await fetch(`${this.url}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${this.token}` },
      body: JSON.stringify({ query, variables }),
    });
    const { data, errors } = await response.json();
    assert.equal(errors, undefined, JSON.stringify(errors));
    return data;
  }

  /** Puts products `p0` to `p<count - 1>` into the catalogue. */
  async stock(count) {
    const products = Array.from({ length: count }, (_, n) => ({ id: `p${n}`, name: `Product ${n}` }));
    await this.graphql(
      'mutation($products: [ProductInput!]!) { upsertProducts(input: { products: $products }) { upserted } }',
      { products },
    );
  }

  /** One event a product: those of a list of numbers. */
  async order(...numbers) {
    const events = numbers.map((n) => {
      this.#sent += 1;
      return { id: `order-${this.#sent}`, signal: 'ORDER', productId: `p${n}`, count: 1 + (this.#sent % 7) };
    });
    const recorded = await this.graphql(
      'mutation($events: [EventInput!]!) { recordEvents(input: { events: $events }) { recorded } }',
      { events },
    );
    assert.equal(recorded.recordEvents.recorded, numbers.length);
  }

  /** What a query shows. */
  async ranking(first = 10) {
    const query = 'query($first: Int!) { ranking(first: $first) { nodes { productId score } } }';
    return (await this.graphql(query, { first })).ranking.nodes;
  }

  /** Waits until what is shown is what a query shows. */
  async agrees(what, shown, first = 10) {
    await until(what, async () => {
      const expected = await this.ranking(first);
      return expected.length > 0 && JSON.stringify(await shown()) === JSON.stringify(expected);
    });
  }
}

export async function until(what, holds) {
  for (const deadline = Date.now() + TIME_MAX_MS; !(await holds()); await new Promise((go) => setTimeout(go, 20)))
    assert.ok(Date.now() < deadline, `not within ${TIME_MAX_MS} ms: ${what}`);
}

/** Ends the process once all is done: clients keep connections open. */
export function done(what) {
  console.log(`${what}: all as it should be`);
  process.exit(0);
}
