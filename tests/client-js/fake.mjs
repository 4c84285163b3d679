// A client whose WebSocket, clock and dice are in the test's hands.

import { SocketShark } from '../../src/demo/socketshark.js';

/** Time that passes only when told to. */
export class Clock {
  now = 0;
  #timers = new Map();
  #last = 0;

  setTimeout = (action, delay) => {
    this.#timers.set(++this.#last, { at: this.now + delay, action });
    return this.#last;
  };

  clearTimeout = (timer) => this.#timers.delete(timer);

  get waiting() {
    return this.#timers.size;
  }

  /** Lets time pass, and everything happen that is due by then. */
  async advance(span) {
    const end = this.now + span;
    for (;;) {
      await settled();
      const due = [...this.#timers].filter(([, { at }]) => at <= end);
      due.sort(([left, a], [right, b]) => a.at - b.at || left - right);
      if (!due.length) break;
      const [id, { at, action }] = due[0];
      this.#timers.delete(id);
      this.now = at;
      action();
    }
    this.now = end;
  }
}

/** Waits until all promises that can go on have done so. */
export const settled = () => new Promise(setImmediate);

class FakeSocket {
  /** Everything sent, pings among it. */
  sent = [];
  #pongs = 0;

  constructor(url) {
    this.url = url;
  }

  // What the client does.

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close(code) {
    this.closed = code ?? 1005;
  }

  // What the router does.

  open() {
    this.onopen({});
    return settled();
  }

  say(...events) {
    for (const event of events) this.onmessage({ data: JSON.stringify(event) });
    return settled();
  }

  /** Answers the pings that are not answered yet, or only so many. */
  pong(count = Infinity) {
    const pings = this.sent.filter(({ event }) => event === 'ping');
    const open = pings.slice(this.#pongs, this.#pongs + count);
    this.#pongs += open.length;
    return this.say(...open.map(({ data }) => ({ event: 'pong', data })));
  }

  lose(code = 1006, reason = '') {
    this.onclose({ code, reason });
    return settled();
  }

  /** The requests sent, without pings. */
  get requests() {
    return this.sent.filter(({ event }) => event !== 'ping');
  }
}

/** A client, its clock, its sockets, and what its listeners were told. */
export function fake(options) {
  const clock = new Clock();
  const sockets = [];
  const told = { open: [], close: [], state: [], error: [] };
  const dice = { value: 0.5 };
  const shark = new SocketShark('ws://router/', {
    WebSocket: class extends FakeSocket {
      constructor(url) {
        super(url);
        sockets.push(this);
      }
    },
    setTimeout: clock.setTimeout,
    clearTimeout: clock.clearTimeout,
    random: () => dice.value,
    ...options,
  });
  for (const name in told) shark.on(name, (detail) => told[name].push(detail));
  // A test looks at its promises when it likes; until then a rejection is nothing unusual.
  for (const name of ['subscribe', 'unsubscribe', 'message']) {
    shark[name] = (...details) => {
      const promise = SocketShark.prototype[name].apply(shark, details);
      promise.catch(() => {});
      return promise;
    };
  }
  return {
    shark,
    clock,
    sockets,
    told,
    dice,
    /** The latest. */
    get socket() {
      return sockets.at(-1);
    },
  };
}

/** The same, connected. */
export async function opened(options) {
  const all = fake(options);
  await all.socket.open();
  return all;
}

export const ok = (event, subscription, more) => ({ event, subscription, status: 'ok', ...more });
export const no = (event, subscription, error) => ({ event, subscription, status: 'error', error });
