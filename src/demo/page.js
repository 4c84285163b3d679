/**
 * The page: a connection, a ticket, subscriptions, and publishing.
 *
 * @module
 */

import { SocketShark } from './socketshark.js';
import { at, make, post, publish, tell } from './dom.js';
import { CALLS, Tapped, note } from './stream.js';
import { offer } from './trials.js';

const setting = (name) => document.querySelector(`meta[name="${name}"]`).content;
const ROUTER = setting('router');
const BROKER = setting('broker');

/** The extra fields that each service of the demo wants. */
const FIELDS = {
  chat: () => ({ color: at('color').value }),
  news: () => ({ language: 'en' }),
};

/** The connection; null after Disconnect. */
let shark = null;
let user = null;

/** Subscription to its tile and fields. They outlive a connection. */
const tiles = new Map();

const serviceOf = (subscription) => subscription.split('.')[0];
const fieldsFor = (subscription) => FIELDS[serviceOf(subscription)]?.() ?? {};

// The connection.

function connect() {
  shark?.close();
  const options = { WebSocket: Tapped, baseDelay: 400, maxDelay: 4000 };
  // Called for every connection: a ticket is good for one.
  if (user) options.ticket = async () => (await post('/tickets', { user })).ticket;
  const ours = new SocketShark(ROUTER, options);
  shark = ours;
  ours.on('state', showState);
  ours.on('open', () =>
    note(`connected to ${ROUTER}${user ? ` as ${user}` : ', without a ticket'}`),
  );
  // What the service is asked is shown in the list; nothing else is to be done with it.
  ours.subscribe(CALLS, {}).catch(() => {});
  ours.on('error', (error) => note(error.message));
  ours.on('close', ({ code, reason, delay }) => {
    if (delay === null) return;
    note(
      `connection lost: ${code}${reason ? ` ${reason}` : ''}; again in ${(delay / 1000).toFixed(1)} s`,
    );
  });
  showState();
  for (const [subscription, { fields }] of tiles) join(subscription, fields);
}

function disconnect() {
  shark.close();
  shark = null;
  note('disconnected');
  showState();
}

const STATES = {
  connecting: 'connecting',
  authenticating: 'showing the ticket',
  open: 'connected',
  waiting: 'lost, trying again',
  closed: 'disconnected',
};

function showState() {
  const state = shark?.state ?? 'closed';
  at('sea').dataset.state = state;
  at('state').textContent = state === 'open' && user ? `connected as ${user}` : STATES[state];
  at('connect').textContent = { closed: 'Connect', waiting: 'Connect now' }[state] ?? 'Disconnect';
  if (state === 'open' && user) tell(at('login-outcome'), `The service knows you as ${user}.`);
}

at('connect').addEventListener('click', () => {
  if (shark && shark.state !== 'waiting') disconnect();
  else connect();
});

at('login').addEventListener('submit', async (event) => {
  event.preventDefault();
  const name = at('user').value.trim();
  try {
    // Whether this name gets one; the connection fetches its own.
    await post('/tickets', { user: name });
  } catch (error) {
    return tell(at('login-outcome'), error.message, true);
  }
  user = name;
  tell(at('login-outcome'), 'A new connection shows the ticket …');
  connect();
});

// Subscriptions.

async function subscribe(subscription, fields) {
  const outcome = at('subscribe-outcome');
  if (!shark) return tell(outcome, 'Connect first.', true);
  if (tiles.has(subscription)) return tell(outcome, `Subscribed to ${subscription} already.`);
  tell(outcome, '');
  tiles.set(subscription, { fields, ...makeTile(subscription) });
  if (await join(subscription, fields)) tell(outcome, `Subscribed to ${subscription}.`);
}

/** Subscribes on the present connection; a refusal takes the tile away. */
async function join(subscription, fields) {
  const { tile, show } = tiles.get(subscription);
  const ours = shark;
  const gone = (error) => {
    if (shark !== ours) return; // A newer connection asks again.
    tiles.delete(subscription);
    tile.remove();
    showSuggestions();
    tell(at('subscribe-outcome'), `${subscription}: ${error}`, true);
  };
  const handlers = {
    subscribed: ({ data }) => {
      tile.classList.add('stands');
      if (!tile.isConnected) at('tiles').append(tile);
      showSuggestions();
      show(data, true);
    },
    message: (data) => {
      show(data, false);
      splash(tile);
    },
    ended: ({ error }) => gone(error),
  };
  try {
    await shark.subscribe(subscription, handlers, fields);
    return true;
  } catch (error) {
    gone(error.message);
    return false;
  }
}

async function leave(subscription) {
  const { tile } = tiles.get(subscription) ?? {};
  try {
    await shark?.unsubscribe(subscription);
  } catch (error) {
    return tell(at('subscribe-outcome'), `${subscription}: ${error.message}`, true);
  }
  tiles.delete(subscription);
  tile?.remove();
  showSuggestions();
  tell(at('subscribe-outcome'), `Left ${subscription}.`);
  // The button that had the focus is gone.
  if (document.activeElement === document.body) at('subscribe-outcome').focus();
}

function showSuggestions() {
  for (const button of document.querySelectorAll('[data-topic]')) {
    const stands = tiles.get(button.dataset.topic)?.tile.classList.contains('stands') ?? false;
    button.setAttribute('aria-pressed', String(stands));
  }
}

at('suggestions').addEventListener('click', ({ target }) => {
  const topic = target.closest('button')?.dataset.topic;
  if (!topic) return;
  if (tiles.has(topic)) leave(topic);
  else subscribe(topic, fieldsFor(topic));
});

const fillFields = () => (at('fields').value = JSON.stringify(fieldsFor(at('subscription').value)));
at('subscription').addEventListener('input', fillFields);
at('color').addEventListener('change', fillFields);

at('subscribe').addEventListener('submit', (event) => {
  event.preventDefault();
  const fields = parsed(at('fields').value || '{}');
  if (fields === null || typeof fields !== 'object') {
    return tell(at('subscribe-outcome'), 'Extra fields are a JSON object.', true);
  }
  subscribe(at('subscription').value.trim(), fields);
});

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

// Tiles: what a subscription shows, and what can be said there.

function makeTile(subscription) {
  const kind = { chat: chatTile, counter: counterTile }[serviceOf(subscription)] ?? plainTile;
  const { body, show } = kind(subscription);
  const tile = make(
    'li',
    { className: `tile ${serviceOf(subscription)}` },
    make(
      'div',
      { className: 'tile-head' },
      make('h3', { textContent: subscription }),
      make('button', {
        type: 'button',
        className: 'quiet',
        textContent: 'Leave',
        aria: { label: `Leave ${subscription}` },
        onclick: () => leave(subscription),
      }),
    ),
    ...body,
  );
  return { tile, show };
}

/** Sends a message to a service; what it says against it is told on the tile. */
async function send(subscription, data, outcome) {
  try {
    if (!shark) throw new Error('Not connected.');
    await shark.message(subscription, data);
    tell(outcome, '');
    return true;
  } catch (error) {
    tell(outcome, error.message, true);
    return false;
  }
}

const LINES_MAX = 6;

function chatTile(subscription) {
  const people = make('p', { className: 'people' });
  const lines = make('ul', {
    className: 'lines',
    aria: { live: 'polite', label: `What is said in ${subscription}` },
  });
  const outcome = make('p', { className: 'outcome', role: 'status' });
  const input = make('input', {
    placeholder: 'Say something',
    maxLength: 500,
    aria: { label: `Say something in ${subscription}` },
  });
  const form = make(
    'form',
    { className: 'row', autocomplete: 'off' },
    input,
    make('button', { textContent: 'Send' }),
  );
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    if (await send(subscription, { text: input.value }, outcome)) input.value = '';
  });
  const say = (line) => {
    lines.append(line);
    while (lines.children.length > LINES_MAX) lines.firstChild.remove();
  };
  const said = ({ from, color, text }) =>
    say(
      make(
        'li',
        {},
        make('b', { className: `name ${colorName(color)}`, textContent: `${from}:` }),
        ` ${text}`,
      ),
    );
  const show = (data, isState) => {
    if (isState) lines.replaceChildren();
    if (isState) data?.lines?.forEach(said);
    if (Array.isArray(data?.people)) {
      people.textContent = data.people.length
        ? `Here: ${data.people.join(', ')}`
        : 'Nobody here yet';
    }
    if (isState) return;
    if (data?.kind === 'said') said(data);
    else if (data?.who)
      say(make('li', { className: 'hint', textContent: `${data.who} ${data.kind}` }));
    else say(make('li', { textContent: JSON.stringify(data) }));
  };
  return { body: [people, lines, form, outcome], show };
}

const colorName = (color) => (['teal', 'coral', 'gold', 'violet'].includes(color) ? color : 'teal');

function counterTile(subscription) {
  const value = make('output', {
    className: 'value',
    textContent: '–',
    aria: { label: 'The counter' },
  });
  const outcome = make('p', { className: 'outcome', role: 'status' });
  const button = make('button', { type: 'button', textContent: 'Add one' });
  button.addEventListener('click', () => send(subscription, null, outcome));
  const hint = make('p', {
    className: 'hint',
    textContent: 'Click fast: at most five messages a second come, the last one always.',
  });
  const show = (data) => (value.textContent = JSON.stringify(data?.value ?? data));
  return { body: [make('div', { className: 'row' }, value, button), hint, outcome], show };
}

function plainTile() {
  const latest = make('p', {
    className: 'latest hint',
    textContent: 'Nothing was published yet.',
    aria: { live: 'polite' },
  });
  const show = (data, isState) => {
    if (isState && data === undefined) return;
    latest.classList.remove('hint');
    latest.textContent = typeof data === 'string' ? data : JSON.stringify(data);
  };
  return { body: [latest], show };
}

/** Something has come: the tile lights up, and the shark twitches. */
function splash(tile) {
  for (const element of [tile, at('sea')]) {
    element.classList.remove('splash');
    void element.offsetWidth; // Starts the animation anew.
    element.classList.add('splash');
  }
}

// Publishing.

/** A message that suits the channel. */
function example(channel) {
  const message = { subscription: channel, data: 'Land in sight!' };
  if (serviceOf(channel) === 'news') message.language = 'en';
  if (serviceOf(channel) === 'chat')
    message.data = { kind: 'said', from: 'lighthouse', color: 'gold', text: 'Mind the rocks!' };
  if (serviceOf(channel) === 'counter') message.data = { value: 42 };
  return JSON.stringify(message);
}

function showLine() {
  // A quote inside single quotes: end them, an escaped quote, begin again.
  const quote = (text) => (/^[\w.:-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
  const message = at('message').value.replaceAll('\n', ' ').trim();
  at('line').textContent =
    `redis-cli -p ${BROKER} publish ${quote(at('channel').value)} ${quote(message)}`;
}

let edited = false;
at('message').addEventListener('input', () => {
  edited = true;
  showLine();
});
at('channel').addEventListener('input', () => {
  if (!edited) at('message').value = example(at('channel').value);
  showLine();
});

at('publish').addEventListener('submit', async (event) => {
  event.preventDefault();
  const outcome = at('publish-outcome');
  const message = parsed(at('message').value);
  if (message === null) return tell(outcome, 'A message is a JSON object.', true);
  try {
    const readers = await publish(at('channel').value, message);
    const advice = readers ? '' : ': nobody is subscribed, so nothing arrives';
    tell(outcome, `The broker had ${readers} ${readers === 1 ? 'reader' : 'readers'}${advice}.`);
  } catch (error) {
    tell(outcome, `Not published: ${error.message}`, true);
  }
});

at('copy').addEventListener('click', async ({ target }) => {
  try {
    await navigator.clipboard.writeText(at('line').textContent);
    target.textContent = 'Copied';
  } catch {
    getSelection().selectAllChildren(at('line'));
    target.textContent = 'Selected';
  }
  setTimeout(() => (target.textContent = 'Copy'), 1500);
});

// All aboard.

at('message').value = example(at('channel').value);
showLine();
fillFields();
offer(() => shark);
connect();
