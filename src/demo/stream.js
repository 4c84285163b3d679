/**
 * Everything that goes over the connection, in both directions, as a list with the newest first.
 *
 * @module
 */

import { at, make } from './dom.js';

/** Rows kept; older ones are gone. */
const ROWS_MAX = 200;

/** Where the service tells what the router asked it. */
export const CALLS = 'calls.all';

/** Members that the router adds to say when; they are shown as a duration. */
const TIMES = ['published_at', 'received_at', 'sent_at', 'queue_size'];

const list = at('events');
const pause = at('pause');

let waiting = [];
let scheduled = false;
let total = 0;

/** Requests without an answer so far: what they were, and when. */
let asked = [];

/** A WebSocket that tells the list what passes. Handed to the client in place of the usual one. */
export class Tapped extends WebSocket {
  constructor(url) {
    super(url);
    asked = [];
    this.addEventListener('message', ({ data }) => record('in', data));
  }

  send(text) {
    record('out', text);
    super.send(text);
  }
}

/** Something that is no event: connected, lost. */
export function note(text) {
  add({ kind: 'note', at: new Date(), text });
}

function record(direction, text) {
  let event;
  try {
    event = JSON.parse(text);
  } catch {
    event = { event: 'not JSON', data: text };
  }
  // Anybody can publish there, so it may be something else.
  const isCall = event.subscription === CALLS && event.data?.hook && event.data.answer;
  add({ kind: isCall ? 'call' : direction, at: new Date(), event, took: took(direction, event) });
}

/** How long something took, in milliseconds, and from where to where. */
function took(direction, event) {
  if (direction === 'out') {
    asked.push({ event: event.event, subscription: event.subscription, since: performance.now() });
    if (asked.length > ROWS_MAX) asked.shift();
    return null;
  }
  const name = event.event === 'pong' ? 'ping' : event.event;
  if (event.status || event.event === 'pong') {
    const index = asked.findIndex(
      (one) => one.event === name && one.subscription === event.subscription,
    );
    if (index < 0) return null;
    // Answers come in order: what was asked before this one gets none any more.
    const [{ since }] = asked.splice(0, index + 1).slice(-1);
    return { milliseconds: performance.now() - since, what: 'from the request to the answer' };
  }
  const since = Date.parse(event.published_at ?? event.sent_at);
  if (Number.isNaN(since)) return null;
  const what = event.published_at ? 'from the service to here' : 'from the router to here';
  return { milliseconds: Math.max(0, Date.now() - since), what };
}

function add(entry) {
  total += 1;
  waiting.unshift(entry);
  waiting.length = Math.min(waiting.length, ROWS_MAX);
  if (!scheduled && pause.getAttribute('aria-pressed') === 'false') {
    // Bursts are shown together. A hidden page gets no frames, but timers.
    scheduled = true;
    setTimeout(show, 30);
  }
}

function show() {
  scheduled = false;
  list.prepend(...waiting.map(row));
  const last = waiting.find(({ event }) => event && !/^p[io]ng$/.test(event.event));
  if (last) at('last-event').textContent = headline(last);
  waiting = [];
  while (list.children.length > ROWS_MAX) list.lastChild.remove();
  at('empty').hidden = list.children.length > 0;
  at('count').textContent = total === 1 ? '1 event' : `${total} events`;
}

function row(entry) {
  const time = make('time', { textContent: clock(entry.at), dateTime: entry.at.toISOString() });
  if (entry.kind === 'note') {
    return make('li', { className: 'note' }, make('span', { textContent: entry.text }), time);
  }
  if (entry.kind === 'call') return callRow(entry, time);
  const { event } = entry;
  const isPing = event.event === 'ping' || event.event === 'pong';
  const out = entry.kind === 'out';
  const head = make(
    'summary',
    {},
    make('span', {
      className: `arrow ${entry.kind}`,
      textContent: out ? '↑' : '↓',
      title: out ? 'to the router' : 'from the router',
    }),
    make('span', { className: 'unseen', textContent: out ? 'sent: ' : 'received: ' }),
    make('b', { textContent: event.event ?? '?' }),
    event.status
      ? make('span', { className: `badge ${event.status}`, textContent: event.status })
      : null,
    event.subscription
      ? make('span', { className: 'topic', textContent: event.subscription })
      : null,
    duration(entry.took),
    time,
    make('code', { className: 'gist', textContent: gist(event) }),
  );
  return make(
    'li',
    { className: entry.kind, data: { ping: isPing } },
    make('details', {}, head, make('pre', { textContent: JSON.stringify(event, null, 2) })),
  );
}

/** A callback: told by the service, and so no event of this connection. */
function callRow({ event }, time) {
  const { hook, body, answer } = event.data;
  const short = (value) => JSON.stringify(value);
  const head = make(
    'summary',
    {},
    make('span', {
      className: 'arrow call',
      textContent: '⇆',
      title: 'from the router to the service, and back',
      aria: { hidden: true },
    }),
    make('b', { textContent: 'callback' }),
    make('span', { className: `badge ${answer.status}`, textContent: String(answer.status) }),
    make('span', { className: 'topic', textContent: hook }),
    time,
    make('code', { className: 'gist', textContent: short(body) }),
  );
  const whole = `POST /callbacks/${hook}\n${JSON.stringify(body, null, 2)}\n\n200 OK\n${JSON.stringify(answer, null, 2)}`;
  return make(
    'li',
    { className: 'call' },
    make('details', {}, head, make('pre', { textContent: whole })),
  );
}

function duration(took) {
  if (!took) return null;
  const { milliseconds, what } = took;
  const text =
    milliseconds < 1 ? '< 1 ms' : `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`;
  return make('span', { className: 'took', textContent: text, title: what });
}

/** What is worth reading of an event, on one line. */
function gist(event) {
  const rest = { ...event };
  for (const name of ['event', 'status', 'subscription', ...TIMES]) delete rest[name];
  return Object.entries(rest)
    .map(([name, value]) => `${name} ${JSON.stringify(value)}`)
    .join('  ');
}

/** One event in a few words. */
function headline({ kind, event }) {
  if (kind === 'call') return `⇆ callback ${event.data.hook}`;
  return [kind === 'out' ? '↑' : '↓', event.event, event.status, event.subscription]
    .filter(Boolean)
    .join(' ');
}

function clock(date) {
  const time = date.toLocaleTimeString('en-GB');
  return `${time}.${String(date.getMilliseconds()).padStart(3, '0')}`;
}

pause.addEventListener('click', () => {
  const paused = pause.getAttribute('aria-pressed') === 'false';
  pause.setAttribute('aria-pressed', String(paused));
  pause.textContent = paused ? 'Go on' : 'Pause';
  if (!paused) show();
});

at('clear').addEventListener('click', () => {
  list.replaceChildren();
  waiting = [];
  total = 0;
  show();
});

const shown = { pings: at('pings'), callbacks: at('callbacks') };
const choose = () => {
  list.classList.toggle('with-pings', shown.pings.checked);
  list.classList.toggle('with-callbacks', shown.callbacks.checked);
};
Object.values(shown).forEach((box) => box.addEventListener('change', choose));
choose();

// On a phone the list is far down: the last event stays in sight, until the list is.
new IntersectionObserver(([{ isIntersecting }]) => (at('last').hidden = isIntersecting)).observe(
  list,
);
