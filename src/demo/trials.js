/**
 * Trials of what the router holds back: five messages are published, and those that do not arrive
 * are told with the reason.
 *
 * @module
 */

import { at, make, publish } from './dom.js';

const TOPIC = 'news.trial';

/** Time for a message to arrive, in milliseconds. */
const PATIENCE = 6000;

/**
 * Each trial: what it says, what a message carries besides its number, and why one was held back.
 * `arrived` holds the numbers that came.
 */
const TRIALS = {
  order: {
    about:
      'Numbered with options.order, and published in the wrong order. What comes after a higher number is dropped.',
    numbers: [1, 4, 2, 5, 3],
    carry: (number, key) => ({ options: { order: number, order_key: key } }),
    label: (number) => `order ${number}`,
    why: (number, before) => `order: ${Math.max(...before)} had been delivered already`,
  },
  throttle: {
    about:
      'Published at once with options.throttle 1: the first goes out, then the latest when the second is over.',
    numbers: [1, 2, 3, 4, 5],
    carry: (_, key) => ({ options: { throttle: 1, throttle_key: key } }),
    label: (number) => `message ${number}`,
    why: () => 'throttle: a later one took its place within the second',
  },
  fields: {
    about:
      'Published in several languages; this page subscribes with language "en", a filter field of the service.',
    numbers: [1, 2, 3, 4, 5],
    carry: (number) => ({ language: languageOf(number) }),
    label: (number) => `language ${languageOf(number)}`,
    why: (number) => `fields: language is "${languageOf(number)}", not "en"`,
  },
};

const languageOf = (number) => ['en', 'fr', 'en', 'de', 'nl'][number - 1];

/** The buttons; `client` gives the connection in use. */
export function offer(client) {
  const buttons = [...at('trials').children];
  for (const button of buttons) {
    button.addEventListener('click', async () => {
      buttons.forEach((one) => (one.disabled = true));
      button.setAttribute('aria-busy', 'true');
      try {
        await run(TRIALS[button.dataset.trial], client());
      } catch (error) {
        at('trial').hidden = false;
        at('trial-about').textContent = `It did not work out: ${error.message}`;
        at('results').replaceChildren();
      }
      button.removeAttribute('aria-busy');
      buttons.forEach((one) => (one.disabled = false));
      button.focus({ preventScroll: true });
    });
  }
}

async function run(trial, shark) {
  if (shark?.state !== 'open') throw new Error('there is no connection.');
  // A key of its own for each run: the router remembers what it has delivered under a key.
  const key = `trial ${Date.now()}`;
  const arrived = new Map();
  let done;
  const over = new Promise((resolve) => (done = resolve));
  const take = (data) => {
    const { run: of, number, last } = data ?? {};
    if (of !== key) return; // Another page tries things too.
    if (number) arrived.set(number, performance.now());
    if (last) done();
  };
  await shark.subscribe(TOPIC, take, { language: 'en' });
  const items = show(trial);
  const sent = new Map();
  let timer;
  try {
    for (const number of trial.numbers) {
      sent.set(number, performance.now());
      // The last of the throttled ones is its own end; elsewhere one more message says so.
      const data = { run: key, number, last: trial === TRIALS.throttle && number === 5 };
      await publish(TOPIC, { subscription: TOPIC, data, ...trial.carry(number, key) });
    }
    if (trial !== TRIALS.throttle)
      await publish(TOPIC, { subscription: TOPIC, data: { run: key, last: true }, language: 'en' });
    await Promise.race([over, new Promise((resolve) => (timer = setTimeout(resolve, PATIENCE)))]);
  } finally {
    clearTimeout(timer);
    await shark.unsubscribe(TOPIC).catch(() => {});
  }
  judge(trial, items, sent, arrived);
}

/** The list before anything is known. */
function show(trial) {
  at('trial').hidden = false;
  at('trial-about').textContent = trial.about;
  const items = trial.numbers.map((number) =>
    make(
      'li',
      { className: 'open' },
      make('span', { className: 'ball', textContent: String(number) }),
      make('span', { textContent: trial.label(number) }),
      make('span', { className: 'verdict', textContent: '…' }),
    ),
  );
  at('results').replaceChildren(...items);
  return items;
}

function judge(trial, items, sent, arrived) {
  trial.numbers.forEach((number, index) => {
    const came = arrived.get(number);
    const before = trial.numbers.slice(0, index).filter((one) => arrived.has(one));
    items[index].className = came ? 'came' : 'held';
    items[index].lastChild.textContent = came
      ? `arrived after ${Math.max(1, Math.round(came - sent.get(number)))} ms`
      : trial.why(number, before);
  });
}
