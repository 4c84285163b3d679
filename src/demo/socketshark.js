/**
 * A client for SocketShark: one module, no dependencies, for browsers and Node 20 or later.
 *
 *     import { SocketShark } from './socketshark.js';
 *
 *     const shark = new SocketShark('wss://example.com/', {
 *       ticket: async () => (await fetch('/ticket', { method: 'POST' })).text(),
 *     });
 *     shark.on('error', console.error);
 *
 *     await shark.subscribe('books.1', (data) => console.log('published', data));
 *     await shark.message('books.1', { title: 'The Whale' });
 *
 * The connection looks after itself. It is opened again whenever it is lost, with a fresh ticket,
 * and every subscription is made again with the fields that it was first made with. Messages that
 * were published in between are lost: `subscribed` of a {@link Handlers} is the place to catch up.
 *
 * ### How long it waits before it connects again
 *
 * Between 0 and `baseDelay * 2 ** failures`, at most `maxDelay`, at random ("full jitter").
 * `failures` counts the connections lost since one was last open for `stableAfter`. Some close
 * codes change that:
 *
 * | code                         | why                              | wait                     |
 * |------------------------------|----------------------------------|--------------------------|
 * | 1000, 1001                   | the router is being restarted    | spread over at least 5 s |
 * | 1012                         | the router has lost its Redis    | spread over at least 5 s |
 * | 1013                         | we read too slowly               | 10 s longer              |
 * | 1008, 4000 to 4999           | something between us forbids it  | 30 s longer              |
 * | 1002, 1003, 1007, 1009, 1010 | we broke the protocol            | 60 s longer              |
 * | any other, 1006 among them   | the network; a refused handshake | as above                 |
 *
 * ### How answers find their requests
 *
 * The router answers a session's requests in order, and its answers carry no number. A message is
 * answered only if its service has something to say; otherwise there is silence. So a ping goes
 * out behind every request. Its pong says that all before it is done, and a message without an
 * answer by then will get none: its promise resolves with `undefined`.
 *
 * A router with WS_PONG_IMMEDIATE does not keep pongs in order. Say `pongsInOrder: false` there,
 * and the event `sync`, which no router knows, takes the ping's place: "Event not found." comes in
 * order everywhere (and is counted by the router under `unknown`). Left at true, the first pong
 * that overtakes an answer gives the router away and has the same effect from then on; until then,
 * a message may be taken for silent whose answer is still to come.
 *
 * @module
 */

/**
 * An event from the router: an answer, if it has a `status`; else something published, or the end
 * of a subscription. Extra fields of the subscription stand beside these.
 *
 * @typedef {object} RouterEvent
 * @property {string} event
 * @property {'ok' | 'error'} [status]
 * @property {string} [subscription]
 * @property {any} [data]
 * @property {any} [error] Mostly a string; a service may say anything.
 */

/**
 * What a subscription calls. A function alone stands for `message`.
 *
 * @typedef {object} Handlers
 * @property {(data: any, event: RouterEvent) => void} [message] Something was published.
 * @property {(answer: RouterEvent) => void} [subscribed] The subscription stands: called the first
 *   time and after every reconnection, before any message. `answer.data` is the service's.
 * @property {(event: RouterEvent) => void} [ended] The router has ended the subscription, or has
 *   refused it after a reconnection; `event.error` says why. Without it there is an `error` event.
 */

/**
 * Times are in milliseconds.
 *
 * @typedef {object} Options
 * @property {() => unknown} [ticket] Called for every connection, once it stands; gives the ticket,
 *   or a promise of it. Without it there is no authentication.
 * @property {number} [baseDelay] The back-off's unit. Default 1000.
 * @property {number} [maxDelay] What the back-off grows to. Default 60000.
 * @property {number} [stableAfter] A connection open for this long resets the back-off.
 *   Default 10000.
 * @property {number} [connectTimeout] For the handshake and the ticket. Default 20000.
 * @property {number} [pingInterval] Silence after which a ping is sent. Default 15000.
 * @property {number} [pongTimeout] Further silence after which the connection counts as lost.
 *   Default 10000.
 * @property {number} [requestTimeout] The same while a request is being handled, since its service
 *   holds up the pong too. Longer than a callback's tries take together. Default 60000.
 * @property {boolean} [pongsInOrder] False if the router has WS_PONG_IMMEDIATE. Default true.
 * @property {number} [maxPending] Promises that may be waiting at one time; further requests are
 *   rejected. Default 1000.
 * @property {new (url: string) => any} [WebSocket] Default: the global one. Node has one from 22
 *   on; before that, pass the one of the package `ws`.
 * @property {(action: () => void, delay: number) => any} [setTimeout] For tests.
 * @property {(timer: any) => void} [clearTimeout] For tests.
 * @property {() => number} [random] For tests: at least 0, below 1.
 */

/** @typedef {'connecting' | 'authenticating' | 'open' | 'waiting' | 'closed'} State */

/**
 * What listeners are given.
 *
 * @typedef {object} Events
 * @property {undefined} open Connected and authenticated; the subscriptions are on their way.
 * @property {{code: number, reason: string, delay: number | null}} close The connection is lost,
 *   or could not be made. The next is tried in `delay` milliseconds; null: none, after `close()`.
 * @property {State} state
 * @property {Error} error What no promise can tell: no ticket, authentication refused, a
 *   subscription without an `ended` has ended, an answer that nobody waits for.
 */

/**
 * @typedef {object} Entry A subscription that is wanted.
 * @property {string} subscription
 * @property {string} request The subscribe event.
 * @property {Handlers} handlers
 * @property {boolean} asked The request was sent on this connection and not refused.
 * @property {boolean} confirmed It once stood.
 * @property {number} refusals In a row, for want of a service.
 * @property {(answer: RouterEvent) => void} resolve Settles the promise of `subscribe()`; has no
 *   effect from the second time on, and so may be called for every answer.
 * @property {(error: Error) => void} reject Likewise.
 */

/**
 * @typedef {object} Pending A request that was sent and is not known to be done.
 * @property {string} event
 * @property {string} [id] Of a ping.
 * @property {(answer?: RouterEvent) => void} resolve
 * @property {(error: SocketSharkError) => void} reject
 */

const DEFAULTS = {
  baseDelay: 1000,
  maxDelay: 60_000,
  stableAfter: 10_000,
  connectTimeout: 20_000,
  pingInterval: 15_000,
  pongTimeout: 10_000,
  requestTimeout: 60_000,
  pongsInOrder: true,
  maxPending: 1000,
  WebSocket: /** @type {any} */ (globalThis).WebSocket,
  // A browser's timers insist on being called as functions of the window.
  setTimeout: (/** @type {() => void} */ action, /** @type {number} */ delay) =>
    setTimeout(action, delay),
  clearTimeout: (/** @type {any} */ timer) => clearTimeout(timer),
  random: Math.random,
};

/** Requests that may pass without an answer, or with one that tells nothing. */
const SILENT = ['message', 'ping', 'sync'];

const ignore = () => {};

/**
 * By close code: milliseconds added to the wait, and the least that its random part spreads over.
 *
 * @param {number} code
 * @returns {[number, number]}
 */
function penalty(code) {
  if ([1000, 1001, 1012].includes(code)) return [0, 5000];
  if (code === 1013) return [10_000, 0];
  if (code === 1008 || (code >= 4000 && code <= 4999)) return [30_000, 0];
  if ([1002, 1003, 1007, 1009, 1010].includes(code)) return [60_000, 0];
  return [0, 0];
}

/** Why a promise was rejected, or what the event `error` tells. */
export class SocketSharkError extends Error {
  /**
   * @param {unknown} reason
   * @param {RouterEvent} [event] What the router said; absent if it said nothing.
   * @param {ErrorOptions} [options]
   */
  constructor(reason, event, options) {
    super(typeof reason === 'string' ? reason : JSON.stringify(reason), options);
    this.name = 'SocketSharkError';
    /** What the router said; undefined if it said nothing: disconnected, closed, too much. */
    this.event = event;
  }
}

/** A connection to a SocketShark router that comes back by itself. */
export class SocketShark {
  #url;
  #options;
  /** @type {{[name: string]: Set<(detail: any) => void>}} */
  #listeners = { open: new Set(), close: new Set(), state: new Set(), error: new Set() };
  /** @type {State} */
  #state = 'connecting';
  /** The WebSocket in use; null while waiting, and after `close()`. @type {any} */
  #socket = null;
  /** In the order of sending, which is that of the answers. @type {Pending[]} */
  #pending = [];
  /** @type {Map<string, Entry>} */
  #subscriptions = new Map();
  /** Everything that is to happen later, by its name. @type {Map<string, any>} */
  #timers = new Map();
  /** Connections lost since the last stable one. */
  #failures = 0;
  /** Promises given out and not settled. */
  #promised = 0;
  #pings = 0;

  /**
   * Connects at once.
   *
   * @param {string} url
   * @param {Options} [options]
   */
  constructor(url, options) {
    this.#url = url;
    this.#options = { ...DEFAULTS, ...options };
    if (!this.#options.WebSocket) {
      throw new Error('There is no WebSocket here: pass one as the option WebSocket.');
    }
    this.#connect();
  }

  /** @returns {State} */
  get state() {
    return this.#state;
  }

  /**
   * Listens to an event; the function returned ends that.
   *
   * @template {keyof Events} Name
   * @param {Name} name
   * @param {(detail: Events[Name]) => void} listener
   * @returns {() => void}
   */
  on(name, listener) {
    this.#listeners[name].add(listener);
    return () => void this.#listeners[name].delete(listener);
  }

  /**
   * Subscribes, now or as soon as there is a connection, and again after every reconnection, until
   * `unsubscribe()`, a refusal, or the router ends it.
   *
   * @param {string} subscription `service.topic`
   * @param {Handlers | Handlers['message']} handler
   * @param {object} [fields] The extra fields that the service wants.
   * @returns {Promise<RouterEvent>} The answer; rejected if the router refuses.
   */
  subscribe(subscription, handler, fields) {
    return this.#promise((resolve, reject) => {
      if (this.#subscriptions.has(subscription)) {
        throw refusal('subscribe', subscription, 'Already subscribed.');
      }
      /** @type {Entry} */
      const entry = {
        subscription,
        request: JSON.stringify({ ...fields, event: 'subscribe', subscription }),
        handlers: typeof handler === 'function' ? { message: handler } : (handler ?? {}),
        asked: false,
        confirmed: false,
        refusals: 0,
        resolve,
        reject,
      };
      this.#subscriptions.set(subscription, entry);
      if (this.#state === 'open') {
        this.#join(entry);
        this.#mark();
      }
    });
  }

  /**
   * Ends a subscription. A service may refuse that; the subscription then stands.
   *
   * @param {string} subscription
   * @returns {Promise<RouterEvent | undefined>} The answer; undefined if there was no connection,
   *   or it was lost meanwhile, which ends a subscription as well.
   */
  unsubscribe(subscription) {
    return this.#promise((resolve, reject) => {
      const entry = this.#subscriptions.get(subscription);
      if (!entry) throw refusal('unsubscribe', subscription, 'Subscription does not exist.');
      const ended = (/** @type {RouterEvent | undefined} */ answer) => {
        this.#forget(entry);
        resolve(answer);
      };
      if (!entry.asked) return ended(undefined);
      const request = JSON.stringify({ event: 'unsubscribe', subscription });
      this.#ask('unsubscribe', request, ended, (error) =>
        error.event ? reject(error) : ended(undefined),
      );
      this.#mark();
    });
  }

  /**
   * Sends a message to the service of a subscription. Nothing is kept for later: without a
   * connection the promise is rejected at once. If the connection is lost before the answer, it is
   * rejected too, and the message may or may not have arrived.
   *
   * @param {string} subscription
   * @param {any} data
   * @returns {Promise<RouterEvent | undefined>} The service's answer; undefined if it gave none.
   */
  message(subscription, data) {
    return this.#promise((resolve, reject) => {
      if (this.#state !== 'open') throw new SocketSharkError('Not connected.');
      const request = JSON.stringify({ event: 'message', subscription, data });
      this.#ask('message', request, resolve, reject);
      this.#mark();
    });
  }

  /** Disconnects for good. Whatever waits is rejected. */
  close() {
    if (this.#state === 'closed') return;
    const error = new SocketSharkError('Closed.');
    const socket = this.#detach(error);
    this.#subscriptions.forEach((entry) => entry.reject(error));
    this.#subscriptions.clear();
    this.#enter('closed');
    this.#emit('close', { code: 1000, reason: '', delay: null });
    socket?.close(1000);
  }

  // The connection.

  #connect() {
    const socket = new this.#options.WebSocket(this.#url);
    this.#socket = socket;
    // What a socket says after we have given it up is of no interest.
    /** @param {(event: any) => void} action @returns {(event: any) => void} */
    const ifCurrent = (action) => (event) => {
      if (this.#socket === socket) action(event);
    };
    socket.onopen = ifCurrent(() => this.#authenticate(socket));
    socket.onmessage = ifCurrent((event) => this.#receive(event.data));
    socket.onclose = ifCurrent((event) => this.#lost(event.code, event.reason));
    // A close event should follow; Node 20's own WebSocket has none for a failed handshake. Only
    // outside of browsers is there a message.
    socket.onerror = ifCurrent((event) => {
      if (this.#state === 'connecting') this.#drop(event.message || 'No connection.');
    });
    this.#giveUpAfter(this.#options.connectTimeout, 'No connection in time.');
    this.#enter('connecting');
  }

  /**
   * A ticket is short-lived, so it is fetched when it can be used.
   *
   * @param {any} socket
   */
  async #authenticate(socket) {
    if (!this.#options.ticket) return this.#opened();
    this.#enter('authenticating');
    /** @type {(error: SocketSharkError) => void} */
    const refused = (error) => {
      if (this.#socket !== socket) return;
      this.#emit('error', error);
      this.#drop(error.message);
    };
    let request;
    try {
      request = JSON.stringify({ event: 'auth', ticket: await this.#options.ticket() });
    } catch (cause) {
      return refused(new SocketSharkError(`No ticket: ${cause}`, undefined, { cause }));
    }
    if (this.#socket !== socket) return;
    this.#alive();
    const opened = () => this.#opened();
    this.#ask('auth', request, opened, ({ message, event }) =>
      refused(new SocketSharkError(`Authentication refused: ${message}`, event)),
    );
    this.#mark();
  }

  #opened() {
    this.#alive();
    this.#after('stable', this.#options.stableAfter, () => (this.#failures = 0));
    this.#subscriptions.forEach((entry) => this.#join(entry));
    if (this.#subscriptions.size) this.#mark();
    this.#enter('open');
    this.#emit('open', undefined);
  }

  /**
   * The connection has gone; another one comes.
   *
   * @param {number} code
   * @param {string} reason
   */
  #lost(code, reason) {
    const [more, spread] = penalty(code);
    const delay = more + this.#backoff(this.#failures++, spread);
    this.#detach(new SocketSharkError('The connection was lost before the answer.'));
    this.#after('connect', delay, () => this.#connect());
    this.#enter('waiting');
    this.#emit('close', { code, reason, delay });
  }

  /**
   * Gives the connection up. Its closing handshake may take long, so nobody waits for it.
   *
   * @param {string} reason
   */
  #drop(reason) {
    const socket = this.#socket;
    if (!socket) return; // A listener has closed us meanwhile.
    this.#lost(1006, reason);
    socket.close();
  }

  /**
   * Ends everything that belongs to a connection. Subscriptions stay.
   *
   * @param {SocketSharkError} error What its requests are rejected with.
   * @returns {any} Its socket.
   */
  #detach(error) {
    const socket = this.#socket;
    const pending = this.#pending;
    this.#socket = null;
    this.#pending = [];
    this.#timers.forEach((timer) => this.#options.clearTimeout(timer));
    this.#timers.clear();
    this.#subscriptions.forEach((entry) => (entry.asked = false));
    pending.forEach((request) => request.reject(error));
    return socket;
  }

  /** The router was heard. After some silence it is asked whether it is still there. */
  #alive() {
    const { pingInterval, pongTimeout, requestTimeout } = this.#options;
    this.#after('watch', pingInterval, () => {
      const busy = this.#options.pongsInOrder && this.#pending.length > 0;
      this.#ping();
      this.#giveUpAfter(busy ? requestTimeout : pongTimeout, 'The router is silent.');
    });
  }

  /**
   * @param {number} delay
   * @param {string} reason
   */
  #giveUpAfter(delay, reason) {
    this.#after('watch', delay, () => this.#drop(reason));
  }

  // Requests and answers.

  /**
   * @param {string} event
   * @param {string} request
   * @param {Pending['resolve']} resolve
   * @param {Pending['reject']} reject
   * @param {string} [id]
   */
  #ask(event, request, resolve, reject, id) {
    this.#socket.send(request);
    this.#pending.push({ event, id, resolve, reject });
  }

  #ping() {
    const id = String(++this.#pings);
    const request = JSON.stringify({ event: 'ping', data: id });
    if (this.#options.pongsInOrder) this.#ask('ping', request, ignore, ignore, id);
    else this.#socket.send(request);
  }

  /** Sends what is answered once everything before it is done. */
  #mark() {
    if (this.#options.pongsInOrder) this.#ping();
    else this.#ask('sync', '{"event":"sync"}', ignore, ignore);
  }

  /** @param {string} text */
  #receive(text) {
    this.#alive();
    /** @type {RouterEvent} */
    let event;
    try {
      event = Object(JSON.parse(text));
    } catch (cause) {
      this.#emit('error', new SocketSharkError('Not JSON.', undefined, { cause }));
      return;
    }
    if (event.event === 'pong' || event.status) return this.#answered(event);
    const entry = this.#subscriptions.get(event.subscription ?? '');
    if (!entry) return;
    if (event.event === 'message') this.#call(entry.handlers.message, event.data, event);
    if (event.event === 'unsubscribe') this.#ended(entry, event);
  }

  /** @param {RouterEvent} answer */
  #answered(answer) {
    const isPong = answer.event === 'pong';
    const at = this.#pending.findIndex(({ event, id }) =>
      isPong ? event === 'ping' && id === answer.data : event === answer.event,
    );
    if (at < 0) {
      if (isPong) return; // Pongs that are not in order are signs of life, nothing more.
      this.#distrustPongs();
      this.#emit('error', new SocketSharkError('Nobody waits for this answer.', answer));
      return;
    }
    if (this.#pending.slice(0, at).some(({ event }) => !SILENT.includes(event))) {
      if (isPong) this.#distrustPongs();
      else this.#drop('The router does not answer in order.');
      return;
    }
    const done = this.#pending.splice(0, at + 1);
    const asked = /** @type {Pending} */ (done.pop());
    done.forEach((request) => request.resolve());
    if (answer.status === 'error') asked.reject(new SocketSharkError(answer.error, answer));
    else asked.resolve(answer);
  }

  /** A pong has overtaken an answer: from now on pongs say nothing about messages. */
  #distrustPongs() {
    if (!this.#options.pongsInOrder) return;
    this.#options.pongsInOrder = false;
    this.#pending = this.#pending.filter(({ event }) => event !== 'ping');
    this.#mark();
  }

  /**
   * A promise that counts towards `maxPending`.
   *
   * @param {(resolve: (answer?: any) => void, reject: (error: Error) => void) => void} action
   * @returns {Promise<any>}
   */
  #promise(action) {
    if (this.#state === 'closed') return Promise.reject(new SocketSharkError('Closed.'));
    if (this.#promised >= this.#options.maxPending) {
      return Promise.reject(new SocketSharkError('Too many requests are waiting.'));
    }
    this.#promised++;
    return new Promise(action).finally(() => this.#promised--);
  }

  // Subscriptions.

  /**
   * Subscribes on this connection.
   *
   * @param {Entry} entry
   */
  #join(entry) {
    entry.asked = true;
    const joined = (/** @type {any} */ answer) => {
      entry.confirmed = true;
      entry.refusals = 0;
      entry.resolve(answer);
      this.#call(entry.handlers.subscribed, answer);
    };
    this.#ask('subscribe', entry.request, joined, (error) => this.#refused(entry, error));
  }

  /**
   * @param {Entry} entry
   * @param {SocketSharkError} error
   */
  #refused(entry, error) {
    const { event } = error;
    if (!event) return; // The connection was lost; the next one asks again.
    entry.asked = false;
    if (!entry.confirmed) {
      this.#forget(entry, error);
    } else if (event.error !== 'Service unavailable.') {
      this.#ended(entry, event);
    } else {
      // It stood before, and the service will be back.
      this.#after(`join ${entry.subscription}`, this.#backoff(entry.refusals++), () => {
        this.#join(entry);
        this.#mark();
      });
    }
  }

  /**
   * The router does not keep this subscription any more.
   *
   * @param {Entry} entry
   * @param {RouterEvent} event
   */
  #ended(entry, event) {
    this.#forget(entry);
    const { ended } = entry.handlers;
    if (ended) this.#call(ended, event);
    else this.#emit('error', new SocketSharkError(`${entry.subscription}: ${event.error}`, event));
  }

  /**
   * @param {Entry} entry
   * @param {Error} [error] For a `subscribe()` that was not answered yet.
   */
  #forget(entry, error = new SocketSharkError('Unsubscribed.')) {
    entry.reject(error);
    // It may have been ended before, and another one of its name made since.
    if (this.#subscriptions.get(entry.subscription) !== entry) return;
    this.#subscriptions.delete(entry.subscription);
    this.#cancel(`join ${entry.subscription}`);
  }

  // Time, and telling.

  /**
   * @param {number} failures
   * @param {number} [spread] The least range of the random wait.
   * @returns {number} Milliseconds.
   */
  #backoff(failures, spread = 0) {
    const { baseDelay, maxDelay, random } = this.#options;
    return random() * Math.max(spread, Math.min(maxDelay, baseDelay * 2 ** failures));
  }

  /**
   * @param {string} name Replaces what was to happen under this name.
   * @param {number} delay
   * @param {() => void} action
   */
  #after(name, delay, action) {
    this.#cancel(name);
    this.#timers.set(name, this.#options.setTimeout(action, delay));
  }

  /** @param {string} name */
  #cancel(name) {
    this.#options.clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }

  /** @param {State} state */
  #enter(state) {
    this.#state = state;
    this.#emit('state', state);
  }

  /**
   * @template {keyof Events} Name
   * @param {Name} name
   * @param {Events[Name]} detail
   */
  #emit(name, detail) {
    this.#listeners[name].forEach((listener) => this.#call(listener, detail));
  }

  /**
   * What a listener throws must not stop us; it is reported like any other uncaught exception.
   *
   * @template {any[]} Details
   * @param {((...details: Details) => void) | undefined} listener
   * @param {Details} details
   */
  #call(listener, ...details) {
    try {
      listener?.(...details);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }
}

/**
 * What the router would answer, without asking it.
 *
 * @param {string} event
 * @param {string} subscription
 * @param {string} error
 */
function refusal(event, subscription, error) {
  return new SocketSharkError(error, { event, subscription, status: 'error', error });
}
