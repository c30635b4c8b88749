// A proxy of bytes in front of a server: what runs through it can be cut, and led elsewhere.
import net from 'node:net';
import { once } from 'node:events';

export class Proxy {
  #sockets = new Set();

  static async to(url) {
    const proxy = new Proxy();
    proxy.target = url;
    const server = net.createServer((client) => proxy.#take(client)).listen(0, '127.0.0.1');
    await once(server, 'listening');
    proxy.url = `http://127.0.0.1:${server.address().port}`;
    return proxy;
  }

  #take(client) {
    const { hostname, port } = new URL(this.target);
    const server = net.connect(Number(port), hostname);
    for (const [from, to] of [[client, server], [server, client]]) {
      this.#sockets.add(from);
      from.on('error', () => to.destroy());
      from.on('close', () => {
        this.#sockets.delete(from);
        to.destroy();
      });
      from.pipe(to);
    }
  }

  /** Breaks everything off, without a word. */
  cut() {
    for (const socket of this.#sockets) socket.destroy();
  }
}
