// Relay: its compiler over schema.graphql, and its runtime with React on a page in Chromium.
// Arguments: the server's address, a token with the roles USER and INGEST, one with the role USER of somebody else.
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdir, mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import compiler from 'relay-compiler';
import { Shop, done, until } from './board.mjs';

const [url, token, another] = process.argv.slice(2);
const folder = join(dirname(fileURLToPath(import.meta.url)), 'relay');

// The compiler takes the schema, and every fragment that is to be refetched.
await rm(join(folder, '__generated__'), { recursive: true, force: true });
await mkdir(join(folder, '__generated__'));
execFileSync(compiler, [join(folder, 'relay.config.json')], { cwd: folder, stdio: 'pipe' });
const artifacts = await readdir(join(folder, '__generated__'));
for (const query of ['pageProductQuery', 'pageBoardQuery']) {
  assert.ok(artifacts.includes(`${query}.graphql.js`), `${artifacts}`);
  const text = await readFile(join(folder, '__generated__', `${query}.graphql.js`), 'utf8');
  assert.match(text, /node\(nodeId: \$nodeId\)/, 'it asks by the global id');
}

// What bundlers' plugins for Relay do: each graphql`` becomes the artifact of that name.
const artifactsOfTags = {
  name: 'relay',
  setup({ onLoad }) {
    onLoad({ filter: /page\.jsx$/ }, async ({ path }) => {
      const imports = [];
      const replaced = (await readFile(path, 'utf8')).replace(/graphql`\s*(?:query|mutation|fragment) (\w+)[^`]*`/g, (_, name) => {
        imports.push(`import ${name}_artifact from './__generated__/${name}.graphql.js';`);
        return `${name}_artifact`;
      });
      assert.equal(imports.length, 4);
      return { contents: imports.join('\n') + replaced, loader: 'jsx' };
    });
  },
};
const { outputFiles } = await build({
  entryPoints: [join(folder, 'page.jsx')],
  plugins: [artifactsOfTags],
  bundle: true,
  write: false,
  format: 'esm',
  jsx: 'automatic',
  define: { 'process.env.NODE_ENV': '"production"' },
});

const shop = new Shop(url, token);
await shop.stock(3);
await shop.order(0, 1, 2);
await until('the board is filled', async () => (await shop.ranking()).map(({ productId }) => productId).join() === 'p2,p1,p0');

// The page, and the API under the same origin.
const read = async (request) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
};
let reported;
const report = new Promise((told) => (reported = told));
const routes = {
  '/': async () => '<!doctype html><main></main><script type="module" src="/page.js"></script>',
  '/page.js': async () => outputFiles[0].text,
  '/report': async (body) => reported(JSON.parse(body)),
  '/like-of-another': (id) =>
    new Shop(url, another).graphql('mutation($id: ID!) { setLike(input: { productId: $id, liked: true }) { liked } }', { id }),
  '/graphql': async (body) => {
    const headers = { 'content-type': 'application/json', authorization: `Bearer ${token}` };
    return (await fetch(`${url}/graphql`, { method: 'POST', headers, body })).text();
  },
};
const types = { '/': 'text/html; charset=utf-8', '/page.js': 'text/javascript' };
const site = createServer(async (request, response) => {
  const answer = await routes[request.url]?.(await read(request));
  response.writeHead(routes[request.url] ? 200 : 404, { 'content-type': types[request.url] ?? 'application/json' });
  response.end(typeof answer === 'string' ? answer : '{}');
});
await new Promise((listening) => site.listen(0, '127.0.0.1', listening));

const profile = await mkdtemp(join(tmpdir(), 'acclaim-relay-'));
const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run'];
const browser = spawn('chromium', [...flags, `--user-data-dir=${profile}`, '--remote-debugging-port=0', `http://127.0.0.1:${site.address().port}/`], {
  stdio: 'ignore',
  detached: true,
});
const late = new Promise((_, fail) => setTimeout(() => fail(new Error('the page does not report within 90 s')), 90_000));
try {
  assert.deepEqual(await Promise.race([report, late]), { done: 'p2' });
} finally {
  // All of its processes are in a group of their own.
  process.kill(-browser.pid, 'SIGKILL');
  await rm(profile, { recursive: true, force: true, maxRetries: 10 });
}
done('Relay');
