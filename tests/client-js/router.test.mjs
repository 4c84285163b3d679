// The client and the real router.
//
// - use:      authentication, subscriptions, messages, the router's own unsubscribe
// - failures: the router, Redis, tickets, the network, slow services
// - codes:    a server that closes with any code

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, test } from 'node:test';

import {
  Proxy, Redis, Router, Service, WebSocketServer, connect, library, patience, until,
} from './real.mjs';

/** Everything, with a client that is open. */
async function all(t, { config, client, proxied } = {}) {
  const redis = await Redis.start(t);
  const service = await Service.start(t);
  service.answers['/auth'] = { status: 'ok', user: 'u' };
  const router = await Router.start(t, redis, { ...library(service), ...config?.(service) });
  const proxy = proxied && (await Proxy.start(t, router.port));
  let tickets = 0;
  const ticket = async () => `ticket ${++tickets}`;
  const { url } = proxy ?? router;
  const it = { redis, service, router, proxy, ...connect(t, url, { ticket, ...client }) };
  await it.opened(1);
  return it;
}

/** Subscribes; gives the list that published data is added to. */
async function listen({ shark }, subscription = 'books.1', fields = { author: 'a' }) {
  const heard = [];
  const answer = await shark.subscribe(subscription, (data) => heard.push(data), fields);
  assert.equal(answer.status, 'ok');
  return heard;
}

async function hears({ redis }, heard, data, subscription = 'books.1') {
  await redis.publish(subscription, data);
  await until('the publication', () => heard.length);
  assert.deepEqual(heard.splice(0), [data]);
}

describe('use', () => {
  test('authentication, subscription, messages, and their end', patience, async (t) => {
    const it = await all(t);
    it.service.answers['/before_subscribe'] = { status: 'ok', data: { title: 'Moby-Dick' } };
    it.service.answers['/message'] = ({ data }) =>
      ({
        silent: { status: 'ok' },
        answered: { status: 'ok', data: 'done' },
        refused: { status: 'error', error: 'Not yours.', data: 'why' },
      })[data];
    const heard = [];
    const answer = await it.shark.subscribe('books.1', (...is) => heard.push(is), { author: 'a' });
    assert.deepEqual(answer, {
      event: 'subscribe', subscription: 'books.1', status: 'ok', author: 'a',
      data: { title: 'Moby-Dick' },
    });
    await it.redis.publish('books.1', { pages: 635 });
    await until('the publication', () => heard.length);
    const event = { event: 'message', subscription: 'books.1', data: { pages: 635 }, author: 'a' };
    assert.deepEqual(heard, [[{ pages: 635 }, event]]);
    // Sent together, answered apart.
    const kinds = ['silent', 'answered', 'silent', 'refused', 'silent'];
    const results = await Promise.allSettled(
      kinds.map((kind) => it.shark.message('books.1', kind)),
    );
    assert.deepEqual(
      results.map(({ value, reason }) => value?.data ?? reason?.event),
      [
        undefined, 'done', undefined,
        {
          event: 'message', subscription: 'books.1', status: 'error', author: 'a',
          error: 'Not yours.', data: 'why',
        },
        undefined,
      ],
    );
    assert.deepEqual(it.service.bodies('/message')[0], {
      subscription: 'books.1', author: 'a', user: 'u', data: 'silent',
    });
    it.service.answers['/before_unsubscribe'] = { status: 'error', error: 'Stay.' };
    await assert.rejects(it.shark.unsubscribe('books.1'), { message: 'Stay.' });
    it.service.answers['/before_unsubscribe'] = { status: 'ok', data: 'bye' };
    assert.equal((await it.shark.unsubscribe('books.1')).data, 'bye');
    await assert.rejects(it.shark.message('books.1', 1), ({ event }) => {
      assert.equal(event.error, 'Subscription does not exist.');
      return true;
    });
    assert.deepEqual(it.service.bodies('/auth'), [{ ticket: 'ticket 1' }]);
    assert.deepEqual(it.told.error, []);
  });

  test('refusals of every kind', patience, async (t) => {
    const it = await all(t, {
      config: (service) => ({ SERVICES: { ...library(service).SERVICES, open: {} } }),
    });
    it.service.answers['/before_subscribe'] = { status: 'error', error: { code: 7 } };
    for (const [subscription, error] of [
      ['books.1', { code: 7 }],
      ['nothing.1', 'Invalid service.'],
      ['books', 'Invalid subscription format.'],
      ['', 'Invalid subscription format.'],
    ]) {
      await assert.rejects(it.shark.subscribe(subscription), ({ event }) => {
        assert.deepEqual(event.error, error);
        assert.equal(event.event, 'subscribe');
        return true;
      });
    }
    await listen(it, 'open.1');
    assert.equal(it.told.close.length, 0);
  });

  test('no authentication where none is wanted', patience, async (t) => {
    const it = await all(t, {
      config: () => ({ AUTHENTICATION: {}, SERVICES: { news: { require_authentication: false } } }),
      client: { ticket: undefined },
    });
    const heard = await listen(it, 'news.today');
    await hears(it, heard, 'hello', 'news.today');
    assert.deepEqual(it.told.state, ['open']);
  });

  test('a subscription whose authorization ends', patience, async (t) => {
    const it = await all(t, {
      config: (service) => {
        const books = {
          authorizer: service.url('/authorizer'),
          authorization_renewal_period: 0.05,
        };
        return { SERVICES: { books } };
      },
    });
    const ended = [];
    await it.shark.subscribe('books.1', { ended: (event) => ended.push(event) });
    it.service.answers['/authorizer'] = { status: 'error', error: 'Expired.' };
    await until('the end', () => ended.length);
    assert.deepEqual(ended, [
      { event: 'unsubscribe', subscription: 'books.1', error: 'Expired.' },
    ]);
    // It may be made again.
    it.service.answers['/authorizer'] = { status: 'ok' };
    await listen(it);
  });

  test('more subscriptions than the router queues', patience, async (t) => {
    const it = await all(t);
    const names = Array.from({ length: 200 }, (_, index) => `books.${index}`);
    await Promise.all(names.map((name) => it.shark.subscribe(name, null, { author: name })));
    await it.router.kill();
    await it.router.restart();
    await it.opened(2);
    const made = () => it.service.bodies('/before_subscribe');
    await until('all of them again', () => made().length === 400);
    assert.deepEqual(made().slice(200), made().slice(0, 200));
  });
});

describe('failures', () => {
  for (const [signal, code] of [['SIGKILL', 1006], ['SIGTERM', 1001]]) {
    test(`the router ends by ${signal} and comes back`, patience, async (t) => {
      const it = await all(t);
      const first = await listen(it, 'books.1', { author: 'a' });
      const second = await listen(it, 'books.2', { author: 'b' });
      await it.router.kill(signal);
      await until('the loss', () => it.told.close.length);
      assert.equal(it.told.close[0].code, code);
      await assert.rejects(it.shark.message('books.1', 1), { message: 'Not connected.' });
      const third = [];
      const remembered = it.shark.subscribe('books.3', (data) => third.push(data));
      await it.router.restart();
      await remembered;
      await hears(it, first, 'one');
      await hears(it, second, 'two', 'books.2');
      await hears(it, third, 'three', 'books.3');
      const bodies = it.service.bodies('/before_subscribe');
      assert.deepEqual(bodies.slice(2, 4), bodies.slice(0, 2));
      assert.equal(bodies[2].author, 'a');
      assert.equal(bodies.length, 5);
      const tickets = it.service.bodies('/auth').map(({ ticket }) => ticket);
      assert.equal(new Set(tickets).size, 2);
      assert.equal(await it.shark.message('books.1', 1), undefined);
    });
  }

  test('Redis is lost and comes back', patience, async (t) => {
    const it = await all(t);
    const heard = await listen(it);
    await it.redis.kill();
    await until('refused handshakes', () => it.told.close.length >= 3);
    assert.equal(it.told.close[0].code, 1012);
    assert.equal(it.told.close[0].delay, 0.02 * 5000);
    assert.equal(it.told.close[1].code, 1006);
    assert.equal(it.told.close[1].reason, 'Unexpected server response: 503');
    await it.redis.restart();
    await it.opened(2);
    // Settled once the subscription before it stands.
    assert.equal(await it.shark.message('books.1', 1), undefined);
    await hears(it, heard, 'back');
  });

  test('tickets are refused for a while', patience, async (t) => {
    const it = await all(t);
    const heard = await listen(it);
    it.service.answers['/auth'] = { status: 'error', error: 'Unknown ticket.' };
    await it.router.kill();
    await it.router.restart();
    await until('refusals', () => it.told.error.length >= 3);
    assert.equal(it.told.error[0].message, 'Authentication refused: Unknown ticket.');
    assert.equal(it.told.error[0].event.error, 'Unknown ticket.');
    assert.equal(it.told.open.length, 1);
    it.service.answers['/auth'] = { status: 'ok', user: 'u' };
    await it.opened(2);
    assert.equal(await it.shark.message('books.1', 1), undefined);
    await hears(it, heard, 'at last');
    const tickets = it.service.bodies('/auth').map(({ ticket }) => ticket);
    assert.equal(new Set(tickets).size, tickets.length);
  });

  test('the network stalls', patience, async (t) => {
    const it = await all(t, {
      proxied: true,
      client: { pingInterval: 100, pongTimeout: 200, connectTimeout: 500 },
    });
    const heard = await listen(it);
    await hears(it, heard, 'before');
    assert.equal(it.told.close.length, 0);
    it.proxy.stalled = true;
    await until('the watchdog', () => it.told.close.length);
    assert.equal(it.told.close[0].reason, 'The router is silent.');
    await until('a handshake given up', () => it.told.close.length >= 2);
    assert.equal(it.told.close[1].reason, 'No connection in time.');
    it.proxy.stalled = false;
    await it.opened(2);
    assert.equal(await it.shark.message('books.1', 1), undefined);
    await hears(it, heard, 'after');
  });

  /** A service that answers when told to. */
  function slow(it) {
    let release;
    const gate = new Promise((resolve) => (release = resolve));
    it.service.answers['/message'] = async ({ data }) => {
      await gate;
      return { status: 'error', error: `No to ${data}.` };
    };
    return release;
  }

  test('a slow service does not look like a dead network', patience, async (t) => {
    const spans = [];
    const it = await all(t, {
      client: {
        pingInterval: 20,
        pongTimeout: 5000,
        requestTimeout: 30_000,
        setTimeout: (action, span) => {
          spans.push(span);
          return setTimeout(action, span);
        },
      },
    });
    await listen(it);
    const release = slow(it);
    const message = it.shark.message('books.1', 1);
    await until('the watchdog to ask', () => spans.includes(30_000));
    release();
    await assert.rejects(message, { message: 'No to 1.' });
    assert.equal(it.told.close.length, 0);
  });

  for (const pongsInOrder of [true, false]) {
    const name = `pongs that come at once, ${pongsInOrder ? 'found out' : 'announced'}`;
    test(name, patience, async (t) => {
      const it = await all(t, {
        config: () => ({ WS_PONG_IMMEDIATE: true }),
        client: { pongsInOrder, pingInterval: 20, pongTimeout: 5000 },
      });
      await listen(it);
      const release = slow(it);
      const messages = [1, 2].map((data) => it.shark.message('books.1', data));
      await until('the callback', () => it.service.bodies('/message').length);
      release();
      for (const [index, message] of messages.entries()) {
        await assert.rejects(message, { message: `No to ${index + 1}.` });
      }
      it.service.answers['/message'] = { status: 'ok' };
      assert.equal(await it.shark.message('books.1', 3), undefined);
      assert.deepEqual(it.told.error, []);
      assert.equal(it.told.close.length, 0);
    });
  }
});

describe('codes', () => {
  /** A server that closes every connection with the next of these codes. */
  async function closing(t, codes) {
    const left = [...codes];
    const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
    t.after(() => server.close());
    server.on('connection', (socket) => socket.close(left.shift(), 'so it is'));
    await once(server, 'listening');
    return `ws://127.0.0.1:${server.address().port}/`;
  }

  test('each is heeded, on a real connection', patience, async (t) => {
    const codes = [1001, 1012, 1013, 1008, 4000, 1002, 1007, 1009];
    const never = 1_000_000;
    const { told } = connect(t, await closing(t, codes), {
      random: () => 0.5,
      baseDelay: 2,
      maxDelay: 2,
      connectTimeout: never,
      pingInterval: never,
      stableAfter: never,
      // Nobody waits a minute here.
      setTimeout: (action, delay) => setTimeout(action, delay === never ? delay : 0),
    });
    await until('every code', () => told.close.length >= codes.length);
    assert.deepEqual(
      told.close.slice(0, codes.length).map(({ code, reason, delay }) => [code, reason, delay]),
      codes.map((code, index) => {
        const waits = [2500, 2500, 10_001, 30_001, 30_001, 60_001, 60_001, 60_001];
        return [code, 'so it is', waits[index]];
      }),
    );
  });
});
