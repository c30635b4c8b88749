// A page as Relay's users write it: a board, whose products refetch themselves, and a button that likes one.
// relay.mjs does what bundlers' plugins for Relay do to graphql``.
import { Suspense } from 'react';
import { createRoot } from 'react-dom/client';
import { RelayEnvironmentProvider, graphql, useLazyLoadQuery, useMutation, useRefetchableFragment } from 'react-relay';
import { Environment, Network, RecordSource, Store } from 'relay-runtime';

const environment = new Environment({
  network: Network.create(async ({ text }, variables) => {
    const response = await fetch('/graphql', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ query: text, variables }),
    });
    return response.json();
  }),
  store: new Store(new RecordSource()),
  getDataID: ({ nodeId }) => nodeId,
});

function Product({ product }) {
  const [data, refetch] = useRefetchableFragment(
    graphql`
      fragment page_product on Product @refetchable(queryName: "pageProductQuery") {
        id
        name
        like { count }
      }
    `,
    product,
  );
  const [commit] = useMutation(graphql`
    mutation pageLikeMutation($input: SetLikeInput!) {
      setLike(input: $input) { product { like { count } } userErrors { message } }
    }
  `);
  return (
    <span>
      {data.name}: <b>{data.like.count}</b>
      <button className="refetch" onClick={() => refetch({}, { fetchPolicy: 'network-only' })}>refetch</button>
      <button className="like" onClick={() => commit({ variables: { input: { productId: data.id, liked: true } } })}>like</button>
    </span>
  );
}

function Board({ board }) {
  const [data, refetch] = useRefetchableFragment(
    graphql`
      fragment page_board on Board
      @refetchable(queryName: "pageBoardQuery")
      @argumentDefinitions(first: { type: "Int", defaultValue: 3 }) {
        title
        current { entries(first: $first) { nodes { rank product { id ...page_product } } } }
      }
    `,
    board,
  );
  return (
    <section>
      <h1>{data.title}</h1>
      <button id="first" onClick={() => refetch({ first: 1 }, { fetchPolicy: 'network-only' })}>only the first</button>
      <ol>
        {data.current.entries.nodes.map(({ product }) => (
          <li key={product.id} id={product.id}><Product product={product} /></li>
        ))}
      </ol>
    </section>
  );
}

function Page() {
  const { board } = useLazyLoadQuery(graphql`query pageQuery { board { ...page_board } }`, {});
  return <Board board={board} />;
}

const shown = [];
addEventListener('error', ({ message }) => shown.push(message));
createRoot(document.querySelector('main'), { onUncaughtError: (error) => shown.push(String(error)) }).render(
  <RelayEnvironmentProvider environment={environment}>
    <Suspense fallback={<p>…</p>}><Page /></Suspense>
  </RelayEnvironmentProvider>,
);

// What the test does with the page.
const until = async (what, holds) => {
  for (const deadline = Date.now() + 30_000; !holds(); await new Promise((go) => setTimeout(go, 20)))
    if (Date.now() > deadline) throw new Error(`${what}: ${document.querySelector('main').innerHTML} ${shown}`);
};
const rows = () => [...document.querySelectorAll('li')].map(({ id }) => id).join(' ');
const likes = (id) => document.querySelector(`#${id} b`)?.textContent;
const click = (selector) => document.querySelector(selector).click();
const report = (told) => fetch('/report', { method: 'POST', body: JSON.stringify(told) });
try {
  await until('the board is shown', () => rows() === 'p2 p1 p0');
  await until('nobody likes anything', () => likes('p1') === '0' && likes('p2') === '0');
  // Somebody else likes a product, and it is asked for again by its global id alone.
  await fetch('/like-of-another', { method: 'POST', body: 'p1' });
  click('#p1 .refetch');
  await until('the product is refetched', () => likes('p1') === '1');
  // A mutation's answer finds the product in the cache by the same id.
  click('#p2 .like');
  await until('the like shows', () => likes('p2') === '1');
  // The board is asked for again, with another argument.
  click('#first');
  await until('one row is left', () => rows().split(' ').length === 1);
  await report({ done: rows() });
} catch (error) {
  await report({ failed: String(error) });
}
