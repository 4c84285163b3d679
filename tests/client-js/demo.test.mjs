// `socketshark demo`, as somebody sees it who opens its page: in a headless Chromium.
//
// - a tour: ticket, topics, messages, publishing, the trials, on all kinds of screens
// - hostile messages stay text
// - a router that is restarted
//
// Screenshots go to target/demo/.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { Browser } from './browser.mjs';
import { until } from './real.mjs';

const patience = { timeout: 120_000 };

const SHOTS = fileURLToPath(new URL('../../target/demo/', import.meta.url));
mkdirSync(SHOTS, { recursive: true });

const SCREENS = {
  wide: { width: 1280, height: 900, dark: false },
  'wide-dark': { width: 1280, height: 900, dark: true },
  phone: { width: 390, height: 844, dark: false },
  'phone-dark': { width: 390, height: 844, dark: true },
};

class Demo {
  static async start(t, port) {
    const demo = new Demo();
    t.after(() => demo.child.kill('SIGKILL'));
    // Somebody else may be quicker to take a port.
    for (let tries = 1; ; tries++) {
      demo.port = port();
      try {
        await demo.launch();
        return demo;
      } catch (error) {
        if (tries === 10) throw error;
      }
    }
  }

  /** Starts the process and reads where it is to be found, which it says first. */
  async launch() {
    const stdio = ['ignore', 'pipe', 'inherit'];
    this.child = spawn(process.env.SOCKETSHARK, ['demo', '--port', String(this.port)], { stdio });
    this.ended = once(this.child, 'exit');
    const lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
    const { value } = await lines.next();
    [, this.url] = /^page +(http:\S+)$/.exec(value) ?? assert.fail(`it said: ${value}`);
    this.child.stdout.resume();
  }

  async stop() {
    this.child.kill('SIGINT');
    assert.deepEqual(await this.ended, [0, null]);
  }
}

async function open(t, port = () => 0) {
  const demo = await Demo.start(t, port);
  const browser = await Browser.start(t);
  await browser.look(SCREENS.wide);
  await browser.open(demo.url);
  await browser.shows('#state', 'connected');
  return { demo, browser };
}

async function enter(browser, name) {
  await browser.type('#user', name);
  await browser.press('Enter');
  await browser.shows('#state', `connected as ${name}`);
}

async function subscribe(browser, topic) {
  await browser.click(`[data-topic="${topic}"]`);
  await browser.shows('#subscribe-outcome', `Subscribed to ${topic}.`);
  await browser.shows('#tiles', topic);
}

test('a tour', patience, async (t) => {
  const { browser } = await open(t);

  await t.test('without a ticket, some things are open', async () => {
    await subscribe(browser, 'news.sea');
    await browser.click('[data-topic="chat.reef"]');
    await browser.shows('#subscribe-outcome', 'chat.reef: Authentication required.');
    assert.doesNotMatch(await browser.text('#tiles'), /chat/);
  });

  await t.test('with a ticket, more; subscriptions come along', async () => {
    await enter(browser, 'anna');
    await browser.shows('#tiles', 'news.sea');
    await subscribe(browser, 'chat.reef');
    await browser.shows('.people', 'Here: anna');
    await browser.click('[data-topic="chat.secret"]');
    await browser.shows('#subscribe-outcome', 'Only shark may dive into chat.secret.');
  });

  await t.test('a message goes to the service, and from there to all', async () => {
    await browser.type('.chat form input', 'Ahoy!');
    await browser.press('Enter');
    await browser.shows('.lines', 'anna: Ahoy!');
    await browser.shows('#events', /callback\s+ok\s+chat\/on_message/);
    await browser.shows('#events', 'data {"number":1}');
    await browser.shows('#events', /\d ms/);
    await browser.screenshot(join(SHOTS, 'tour.png'));
  });

  await t.test('what is published arrives, from the page and from a terminal', async () => {
    await browser.click('#publish button');
    await browser.shows('#publish-outcome', 'The broker had 1 reader.');
    await browser.shows('.tile.news', 'Land in sight!');
    const message = { subscription: 'news.sea', data: "Shark's fin!", language: 'en' };
    await browser.type('#message', JSON.stringify(message));
    const line = await browser.text('#line');
    assert.match(line, /^redis-cli -p \d+ publish news\.sea '.*'$/);
    const { stdout } = await promisify(execFile)('bash', ['-c', line]);
    assert.equal(stdout.trim(), '1', 'one reader');
    await browser.shows('.tile.news', "Shark's fin!");
  });

  await t.test('clicks are counted, however fast', async () => {
    await subscribe(browser, 'counter.clicks');
    await browser.shows('.value', '0');
    for (let click = 0; click < 5; click++) await browser.click('.counter .row button');
    await until('the last count', async () => (await browser.text('.value')) === '5');
  });

  await t.test('what is held back is told with its reason', async () => {
    const tried = async (name, marks, reason) => {
      await browser.click(`[data-trial="${name}"]`);
      const sees = `[...document.querySelectorAll('#results li')].map((li) => li.className).join()`;
      await until(`the outcome of ${name}`, async () => (await browser.run(sees)) === marks);
      assert.match(await browser.text('#results'), reason);
      const rests = `!document.querySelector('[data-trial]:disabled')`;
      await until('the end of the trial', () => browser.run(rests));
    };
    await tried('order', 'came,came,held,came,held', /order: 4 had been delivered already/);
    await tried('throttle', 'came,held,held,held,came', /throttle: a later one took its place/);
    await tried('fields', 'came,held,came,held,held', /fields: language is "fr", not "en"/);
    await tried('order', 'came,came,held,came,held', /order/);
  });

  await t.test('it can be left again', async () => {
    await browser.click('.counter .tile-head button');
    await browser.shows('#subscribe-outcome', 'Left counter.clicks.');
    assert.doesNotMatch(await browser.text('#tiles'), /counter/);
  });

  await t.test('another name, other rights', async () => {
    await enter(browser, 'shark');
    await subscribe(browser, 'chat.secret');
    await browser.shows('.chat', 'Here: shark');
  });

  await t.test('it fits all screens', async () => {
    for (const [name, screen] of Object.entries(SCREENS)) {
      await browser.look(screen);
      await browser.run('scrollTo({ top: 0, behavior: "instant" })');
      await browser.screenshot(join(SHOTS, `${name}.png`));
      const width = await browser.run('document.documentElement.scrollWidth');
      assert.ok(width <= screen.width, `${name}: ${width} wide`);
    }
  });

  await t.test('everything can be reached by its name', async () => {
    const nameless =
      await browser.run(`[...document.querySelectorAll('button, input, select, textarea')]
      .filter((one) => !(one.labels?.length || one.textContent || one.getAttribute('aria-label')))
      .map((one) => one.outerHTML)`);
    assert.deepEqual(nameless, []);
  });

  assert.deepEqual(browser.complaints, []);
});

test('hostile messages stay text', patience, async (t) => {
  const { browser } = await open(t);
  await enter(browser, '<b>eve</b>');
  for (const topic of ['news.sea', 'chat.reef']) await subscribe(browser, topic);
  const evil = '<img src=x onerror="document.title=1"><script>document.title=1</script>';
  await browser.type('.chat form input', evil);
  await browser.press('Enter');
  await browser.shows('.lines', evil);
  const message = { subscription: 'news.sea', language: 'en', data: { [evil]: evil }, event: evil };
  await browser.type('#message', JSON.stringify(message));
  await browser.click('#publish button');
  await browser.shows('.tile.news', '<img src=x');
  // What no service of the demo would send is shown all the same.
  for (const data of [null, 7, [], { people: 5 }, { kind: 'said' }, { kind: 'said', from: {} }]) {
    const odd = { subscription: 'chat.reef', data };
    await browser.type('#channel', 'chat.reef');
    await browser.type('#message', JSON.stringify(odd));
    await browser.click('#publish button');
    await browser.shows('#publish-outcome', '1 reader');
  }
  for (const data of [null, { hook: 5 }, { hook: {}, body: evil, answer: true }]) {
    await browser.type('#channel', 'calls.all');
    await browser.type('#message', JSON.stringify({ subscription: 'calls.all', data }));
    await browser.click('#publish button');
    await browser.shows('#publish-outcome', '1 reader');
  }
  await browser.type('.chat form input', 'Still here');
  await browser.press('Enter');
  await browser.shows('.lines', 'Still here');
  await browser.shows('#events', 'Still here');
  assert.equal(await browser.run(`document.querySelectorAll('img, main script').length`), 0);
  assert.equal(await browser.run('document.title'), 'SocketShark demo');
  assert.deepEqual(browser.complaints, []);
});

test('a router that is restarted', patience, async (t) => {
  const { demo, browser } = await open(t, anyPort);
  await enter(browser, 'anna');
  for (const topic of ['news.sea', 'chat.reef']) await subscribe(browser, topic);
  await demo.stop();
  await browser.shows('#state', 'lost');
  await browser.screenshot(join(SHOTS, 'lost.png'));
  await browser.shows('#events', 'connection lost: 1001');
  await demo.launch();
  await browser.shows('#state', 'connected as anna');
  await browser.shows('.people', 'Here: anna');
  await browser.click('#publish button');
  await browser.shows('.tile.news', 'Land in sight!');
  // It did complain that it was refused a connection; but of nothing else.
  const others = browser.complaints.filter((one) => !one.includes('ERR_CONNECTION_REFUSED'));
  assert.deepEqual(others, []);
});

/** A port that another demo can use after the first one: none that the system gives to others. */
const anyPort = () => 10_000 + Math.floor(Math.random() * 20_000);
