// The real router, a real Redis, a small HTTP service and a network that can stall: each with a
// port of its own on the loopback interface, and gone when the test that asked for it is over.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { SocketShark } from '../../src/demo/socketshark.js';

const { CLIENT_JS_MODULES, SOCKETSHARK } = process.env;
if (!CLIENT_JS_MODULES || !SOCKETSHARK) {
  throw new Error('these tests are run by: cargo test --test client_js');
}
/** The package of that name, out of the build's folder. */
export const load = createRequire(join(CLIENT_JS_MODULES, 'of.js'));
export const { WebSocket, WebSocketServer } = load('ws');

/** What a test may take, on a machine that is busy with other things. */
export const patience = { timeout: 60_000 };

/** Processes of ours, which end with us however that happens. */
const children = new Set();
process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));

function start(command, args, stdio) {
  const child = spawn(command, args, { stdio });
  children.add(child);
  child.ended = once(child, 'exit').then(() => children.delete(child));
  return child;
}

async function stop(child, signal = 'SIGKILL') {
  if (child.exitCode === null && child.signalCode === null) child.kill(signal);
  await child.ended;
}

/** Waits for something that comes true by itself. */
export async function until(what, isTrue) {
  const end = Date.now() + 20_000;
  for (;;) {
    const found = await isTrue();
    if (found) return found;
    if (Date.now() > end) throw new Error(`waited in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** A place to listen on that nobody else has for now. */
export async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function connects(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(socket.end()));
    socket.once('error', () => resolve(false));
  });
}

export class Redis {
  static async start(t) {
    const redis = new Redis();
    redis.port = await freePort();
    t.after(() => redis.kill());
    await redis.restart();
    return redis;
  }

  async restart() {
    const options = ['--port', this.port, '--bind', '127.0.0.1', '--save', '', '--daemonize', 'no'];
    this.process = start('redis-server', [...options, '--dir', tmpdir()], 'ignore');
    await until('Redis to listen', () => connects(this.port));
  }

  kill() {
    return stop(this.process);
  }

  /** Publishes to the subscribers of a subscription. */
  async publish(subscription, data) {
    const socket = net.connect(this.port, '127.0.0.1');
    const words = ['PUBLISH', subscription, JSON.stringify({ subscription, data })];
    const bulk = words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`);
    socket.write(`*3\r\n${bulk.join('')}`);
    await once(socket, 'data');
    socket.destroy();
  }
}

/** Answers callbacks: `answers[path]` is an answer, or a function that makes one of the body. */
export class Service {
  answers = {};
  /** Every request: its path and body. */
  calls = [];

  static async start(t) {
    const service = new Service();
    service.server = http.createServer(async (request, response) => {
      let text = '';
      for await (const chunk of request) text += chunk;
      const body = JSON.parse(text);
      service.calls.push({ path: request.url, body });
      const answer = service.answers[request.url] ?? { status: 'ok' };
      const chosen = typeof answer === 'function' ? await answer(body) : answer;
      response.setHeader('Content-Type', 'application/json');
      response.end(JSON.stringify(chosen));
    });
    service.server.listen(0, '127.0.0.1');
    await once(service.server, 'listening');
    t.after(() => {
      service.server.closeAllConnections();
      service.server.close();
    });
    return service;
  }

  url(path) {
    return `http://127.0.0.1:${this.server.address().port}${path}`;
  }

  /** The bodies that came for a path. */
  bodies(path) {
    return this.calls.filter((call) => call.path === path).map(({ body }) => body);
  }
}

export class Router {
  static async start(t, redis, config) {
    const router = new Router();
    const folder = mkdtempSync(join(tmpdir(), 'client-js-'));
    router.file = join(folder, 'config.json');
    t.after(async () => {
      await router.kill();
      rmSync(folder, { recursive: true });
    });
    router.port = 0;
    router.config = {
      WS_HOST: '127.0.0.1',
      HTTP: { timeout: 10, tries: 1 },
      LOG: { style: 'json' },
      REDIS: { host: '127.0.0.1', port: redis.port, reconnect_max_delay: 0.1 },
      ...config,
    };
    await router.restart();
    return router;
  }

  /** Starts it where it was before. */
  async restart() {
    writeFileSync(this.file, JSON.stringify({ ...this.config, WS_PORT: this.port }));
    this.process = start(SOCKETSHARK, ['-c', this.file], ['ignore', 'ignore', 'pipe']);
    const lines = createInterface(this.process.stderr);
    const log = [];
    this.port = await new Promise((resolve, reject) => {
      lines.on('line', (line) => {
        log.push(line);
        const { event, port } = JSON.parse(line);
        if (event === 'ready') resolve(Number(port));
      });
      lines.once('close', () => reject(new Error(`the router ended: ${log.join('\n')}`)));
    });
  }

  kill(signal) {
    return stop(this.process, signal);
  }

  get url() {
    return `ws://127.0.0.1:${this.port}/`;
  }
}

/** A network in front of a port, which can stop to carry anything. */
export class Proxy {
  #pairs = new Set();
  stalled = false;

  static async start(t, port) {
    const proxy = new Proxy();
    proxy.server = net.createServer((near) => {
      const far = net.connect(port, '127.0.0.1');
      const pair = [near, far];
      proxy.#pairs.add(pair);
      for (const [from, to] of [pair, [far, near]]) {
        from.on('data', (bytes) => proxy.stalled || to.write(bytes));
        from.on('error', () => {});
        from.on('close', () => proxy.stalled || to.destroy());
      }
    });
    proxy.server.listen(0, '127.0.0.1');
    await once(proxy.server, 'listening');
    t.after(() => {
      proxy.#pairs.forEach((pair) => pair.forEach((socket) => socket.destroy()));
      proxy.server.close();
    });
    return proxy;
  }

  get url() {
    return `ws://127.0.0.1:${this.server.address().port}/`;
  }
}

/** A client in a hurry, which keeps what its listeners are told. */
export function connect(t, url, options) {
  const told = { open: [], close: [], state: [], error: [] };
  const shark = new SocketShark(url, { WebSocket, baseDelay: 50, random: () => 0.02, ...options });
  t.after(() => shark.close());
  for (const name in told) shark.on(name, (detail) => told[name].push(detail));
  /** Waits until it has been open that often. */
  const opened = (times) => until(`opening ${times}`, () => told.open.length >= times);
  return { shark, told, opened };
}

/** The answers of a service that wants tickets and an extra field, and the configuration. */
export function library(service) {
  return {
    AUTHENTICATION: {
      ticket: { validation_url: service.url('/auth'), auth_fields: ['user'] },
    },
    SERVICES: {
      books: {
        extra_fields: ['author'],
        before_subscribe: service.url('/before_subscribe'),
        on_message: service.url('/message'),
        before_unsubscribe: service.url('/before_unsubscribe'),
      },
    },
  };
}
