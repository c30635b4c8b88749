// Operations as texts, over each transport: HTTP, WebSocket (graphql-transport-ws) and an event stream.
import assert from 'node:assert/strict';
import { Agent, request } from 'node:http';
import WebSocket from 'ws';

/** How many operations are under way at once; a server takes 20 on one WebSocket. */
export const CONCURRENT = 16;
/** A subscription says something at once. Nothing here takes longer on a loaded machine. */
const FIRST_MAX_MS = 30_000;

/** An operation as JSON. Variables are a text already, since numbers can be written in more ways than JavaScript has. */
const body = ({ query, variables, operationName }) => {
  const parts = [`"query":${JSON.stringify(query)}`];
  if (variables !== undefined) parts.push(`"variables":${variables}`);
  if (operationName !== undefined) parts.push(`"operationName":${JSON.stringify(operationName)}`);
  return `{${parts}}`;
};

export class Client {
  #agent = new Agent({ keepAlive: true, maxSockets: CONCURRENT });
  #socket;
  #waiting = new Map();
  #ids = 0;

  constructor(url, headers) {
    Object.assign(this, { url, headers });
  }

  as(headers) {
    const other = new Client(this.url, headers);
    other.#agent = this.#agent;
    return other;
  }

  /** A query or mutation; the whole answer. */
  post(operation) {
    return new Promise((resolve, reject) => {
      this.#request('/graphql', 'application/graphql-response+json', operation, reject, (response) => {
        let text = '';
        response.on('data', (chunk) => (text += chunk)).on('error', reject);
        response.on('end', () => {
          try {
            resolve(JSON.parse(text));
          } catch {
            reject(new Error(`${response.statusCode}: ${text}`));
          }
        });
      });
    });
  }

  /** What a stream of events says first. A stream that was left may still count among those of its user for a moment. */
  async streamed(operation) {
    for (;;) {
      const first = await this.#streamed(operation);
      if (!first.crowded) return first;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  #streamed(operation) {
    return inTime(new Promise((resolve, reject) => {
      const sent = this.#request('/graphql/stream', 'text/event-stream', operation, reject, (response) => {
        let text = '';
        if (response.statusCode === 429) {
          sent.destroy();
          resolve({ crowded: true });
        }
        response.on('data', (chunk) => {
          text += chunk;
          const event = /^event: next\n(?:id: [^\n]*\n)?data: ([^\n]*)\n\n/m.exec(text);
          if (!event && response.headers['content-type'].startsWith('text/event-stream')) return;
          sent.destroy();
          resolve(JSON.parse(event ? event[1] : text));
        });
        response.on('end', () => resolve({ ended: text }));
      });
    }));
  }

  #request(path, accept, operation, failed, answered) {
    const headers = { 'content-type': 'application/json', accept, ...this.headers };
    const sent = request(`${this.url}${path}`, { method: 'POST', agent: this.#agent, headers }, (response) => {
      response.setEncoding('utf8');
      answered(response);
    });
    return sent.on('error', failed).end(body(operation));
  }

  /** What a WebSocket says first about an operation, which is then over. */
  async heard(operation) {
    const socket = await (this.#socket ??= this.#open());
    const id = String((this.#ids += 1));
    const first = inTime(new Promise((resolve) => this.#waiting.set(id, resolve)));
    socket.send(`{"id":"${id}","type":"subscribe","payload":${body(operation)}}`);
    return first;
  }

  #open() {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(`${this.url.replace('http', 'ws')}/graphql/ws`, 'graphql-transport-ws');
      socket.on('open', () => socket.send(JSON.stringify({ type: 'connection_init', payload: this.headers })));
      socket.on('error', reject).on('close', (code) => {
        this.#socket = undefined;
        for (const told of this.#waiting.values()) told({ closed: code });
      });
      socket.on('message', (data) => {
        const { id, type, payload } = JSON.parse(data);
        if (type === 'connection_ack') resolve(socket);
        if (type === 'ping') socket.send('{"type":"pong"}');
        const told = this.#waiting.get(id);
        if (!told) return;
        this.#waiting.delete(id);
        if (type === 'next') socket.send(JSON.stringify({ id, type: 'complete' }));
        told(type === 'next' ? payload : type === 'error' ? { errors: payload } : { ended: type });
      });
    });
  }
}

function inTime(promise) {
  let timer;
  const late = new Promise((resolve) => {
    timer = setTimeout(() => resolve({ late: `nothing within ${FIRST_MAX_MS} ms` }), FIRST_MAX_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Fails where an operation that sets something up does. */
export async function done(client, query, variables) {
  const answer = await client.post({ query, variables: JSON.stringify(variables) });
  assert.equal(answer.errors, undefined, JSON.stringify(answer));
  return answer.data;
}
