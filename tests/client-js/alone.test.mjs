// The client by itself: no socket, no clock but the test's.
//
// - connecting:    tickets, refusals, what is sent when
// - answers:       which request an answer belongs to, messages without one, pongs out of order
// - subscriptions: their handlers, reconnection, refusals, the router's own unsubscribe
// - disconnected:  what is remembered, what is rejected, bounds
// - back-off:      growth, jitter, stability, close codes
// - watchdog:      silence, busy services
// - the end:       close(), listeners that throw

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { SocketShark, SocketSharkError } from '../../src/demo/socketshark.js';
import { fake, no, ok, opened, settled } from './fake.mjs';

/** How a promise stands: what it gave, its error, or 'pending'. */
const standing = (promise) =>
  Promise.race([promise.catch((error) => error), settled().then(() => 'pending')]);

async function subscribed(all, name, handler, fields) {
  const promise = all.shark.subscribe(name, handler, fields);
  await all.socket.say(ok('subscribe', name));
  await all.socket.pong();
  return promise;
}

describe('connecting', () => {
  test('without a ticket it is open as soon as the socket is', async () => {
    const { shark, socket, told } = fake();
    assert.equal(shark.state, 'connecting');
    assert.equal(socket.url, 'ws://router/');
    await socket.open();
    assert.equal(shark.state, 'open');
    assert.deepEqual(told.state, ['open']);
    assert.equal(told.open.length, 1);
    assert.deepEqual(socket.sent, []);
  });

  test('a ticket is fetched once the socket stands, anew for every connection', async () => {
    let tickets = 0;
    const { shark, sockets, clock, told } = fake({ ticket: async () => `ticket ${++tickets}` });
    assert.equal(tickets, 0);
    await sockets[0].open();
    assert.deepEqual(sockets[0].requests, [{ event: 'auth', ticket: 'ticket 1' }]);
    assert.equal(shark.state, 'authenticating');
    await sockets[0].say({ event: 'auth', status: 'ok' });
    assert.equal(shark.state, 'open');
    await sockets[0].lose();
    await clock.advance(1000);
    await sockets[1].open();
    assert.deepEqual(sockets[1].requests, [{ event: 'auth', ticket: 'ticket 2' }]);
    assert.deepEqual(told.state, [
      'authenticating', 'open', 'waiting', 'connecting', 'authenticating',
    ]);
  });

  test('a refused ticket is an error, and the next one is tried with back-off', async () => {
    let tickets = 0;
    const { sockets, clock, told } = fake({ ticket: () => ++tickets });
    const answer = no('auth', undefined, 'Ticket is stale.');
    for (const delay of [500, 1000, 2000, 4000]) {
      await sockets.at(-1).open();
      await sockets.at(-1).say(answer);
      assert.equal(told.close.at(-1).delay, delay);
      assert.equal(sockets.at(-1).closed, 1005);
      await clock.advance(delay);
    }
    assert.equal(tickets, 4);
    assert.equal(told.error.length, 4);
    assert.ok(told.error[0] instanceof SocketSharkError);
    assert.equal(told.error[0].message, 'Authentication refused: Ticket is stale.');
    assert.deepEqual(told.error[0].event, JSON.parse(JSON.stringify(answer)));
    assert.equal(told.close[0].reason, 'Authentication refused: Ticket is stale.');
    assert.equal(told.open.length, 0);
  });

  test('a ticket that cannot be had is an error likewise', async () => {
    const cause = new Error('logged out');
    const { socket, told } = fake({ ticket: () => Promise.reject(cause) });
    await socket.open();
    assert.equal(told.error[0].message, 'No ticket: Error: logged out');
    assert.equal(told.error[0].cause, cause);
    assert.equal(told.error[0].event, undefined);
    assert.equal(told.close[0].delay, 500);
    assert.equal(socket.closed, 1005);
  });

  test('a ticket that comes too late for its connection is not used', async () => {
    const give = [];
    const all = fake({ ticket: () => new Promise((resolve) => give.push(resolve)) });
    await all.socket.open();
    await all.socket.lose();
    await all.clock.advance(500);
    await all.socket.open();
    give[0]('old');
    await settled();
    assert.deepEqual(all.sockets.map(({ sent }) => sent.length), [0, 0]);
    give[1]('new');
    await settled();
    assert.deepEqual(all.socket.requests, [{ event: 'auth', ticket: 'new' }]);
  });

  test('neither a handshake nor a ticket is waited for longer than connectTimeout', async () => {
    const all = fake({ ticket: () => new Promise(() => {}) });
    await all.clock.advance(19_999);
    assert.equal(all.told.close.length, 0);
    await all.clock.advance(1);
    assert.deepEqual(all.told.close, [
      { code: 1006, reason: 'No connection in time.', delay: 500 },
    ]);
    assert.equal(all.sockets[0].closed, 1005);
    await all.clock.advance(500);
    await all.socket.open();
    await all.clock.advance(20_000);
    assert.equal(all.told.close.length, 2);
  });

  test('what a socket says after it was given up does not matter', async () => {
    const all = fake();
    await all.clock.advance(20_000);
    await all.sockets[0].open();
    await all.sockets[0].lose(1013);
    assert.equal(all.shark.state, 'waiting');
    assert.equal(all.told.close.length, 1);
  });

  test('a failed handshake counts once, whether or not a close follows the error', async () => {
    const all = fake();
    for (const message of ['Unexpected server response: 503', undefined]) {
      const { socket } = all;
      socket.onerror({ message });
      assert.equal(all.shark.state, 'waiting');
      await socket.lose();
      await all.clock.advance(5000);
    }
    assert.deepEqual(all.told.close, [
      { code: 1006, reason: 'Unexpected server response: 503', delay: 500 },
      { code: 1006, reason: 'No connection.', delay: 1000 },
    ]);
    assert.equal(all.sockets.length, 3);
  });

  test('an error after that is followed by a close, which says more', async () => {
    const { shark, socket, told } = await opened();
    socket.onerror({});
    assert.equal(shark.state, 'open');
    await socket.lose(1009, 'too big');
    assert.deepEqual(told.close[0], { code: 1009, reason: 'too big', delay: 60_500 });
  });

  test('without any WebSocket it says what to do', () => {
    assert.throws(() => new SocketShark('ws://router/', { WebSocket: undefined }), {
      message: 'There is no WebSocket here: pass one as the option WebSocket.',
    });
  });
});

describe('answers', () => {
  test('a message without an answer is settled by the pong behind it', async () => {
    const { shark, socket } = await opened();
    const message = shark.message('books.1', { title: 'The Whale' });
    assert.deepEqual(socket.sent, [
      { event: 'message', subscription: 'books.1', data: { title: 'The Whale' } },
      { event: 'ping', data: '1' },
    ]);
    assert.equal(await standing(message), 'pending');
    await socket.pong();
    assert.equal(await standing(message), undefined);
  });

  test('of two messages, each gets its own answer, or none', async () => {
    const { shark, socket } = await opened();
    const messages = [1, 2, 3, 4].map((data) => shark.message('books.1', data));
    const answer = ok('message', 'books.1', { data: 'second' });
    await socket.pong(1);
    await socket.say(answer);
    await socket.pong(2);
    assert.equal(await standing(messages[0]), undefined);
    assert.deepEqual(await standing(messages[1]), answer);
    assert.equal(await standing(messages[2]), undefined);
    assert.equal(await standing(messages[3]), 'pending');
    const refusal = no('message', 'books.1', { reason: 'not yours' });
    await socket.say(refusal);
    const error = await standing(messages[3]);
    assert.ok(error instanceof SocketSharkError);
    assert.deepEqual(error.event, refusal);
    assert.equal(error.message, '{"reason":"not yours"}');
  });

  test('something published meanwhile is no answer', async () => {
    const all = await opened();
    const heard = [];
    await subscribed(all, 'books.1', (data) => heard.push(data));
    const message = all.shark.message('books.1', 1);
    await all.socket.say({ event: 'message', subscription: 'books.1', data: 'published' });
    assert.deepEqual(heard, ['published']);
    assert.equal(await standing(message), 'pending');
  });

  test('any later answer settles earlier messages', async () => {
    const { shark, socket } = await opened();
    const message = shark.message('books.1', 1);
    shark.subscribe('books.2');
    await socket.say(ok('subscribe', 'books.2'));
    assert.equal(await standing(message), undefined);
  });

  test('a router that does not know pings answers them in order all the same', async () => {
    const { shark, socket, told } = await opened();
    const message = shark.message('books.1', 1);
    await socket.say(no('ping', undefined, 'Event not found.'));
    assert.equal(await standing(message), undefined);
    assert.deepEqual(told.error, []);
  });

  test('a pong that overtakes an answer is found out', async () => {
    const { shark, socket } = await opened();
    const subscription = shark.subscribe('books.1');
    const message = shark.message('books.1', 1);
    await socket.pong();
    assert.equal(await standing(message), 'pending');
    // From here on another event takes the pings' place.
    assert.deepEqual(socket.sent.at(-1), { event: 'sync' });
    await socket.say(ok('subscribe', 'books.1'));
    assert.equal((await standing(subscription)).status, 'ok');
    assert.equal(await standing(message), 'pending');
    await socket.say(no('sync', undefined, 'Event not found.'));
    assert.equal(await standing(message), undefined);
    const next = shark.message('books.1', 2);
    assert.deepEqual(socket.sent.slice(-2).map(({ event }) => event), ['message', 'sync']);
    await socket.say(no('message', 'books.1', 'No.'), no('sync', undefined, 'Event not found.'));
    assert.equal((await standing(next)).message, 'No.');
  });

  test('pongsInOrder false: pongs settle nothing', async () => {
    const { shark, socket, clock } = await opened({ pongsInOrder: false });
    const message = shark.message('books.1', 1);
    assert.deepEqual(socket.sent[1], { event: 'sync' });
    await clock.advance(15_000);
    assert.equal(socket.sent[2].event, 'ping');
    await socket.pong();
    assert.equal(await standing(message), 'pending');
    const answer = ok('message', 'books.1', { data: 1 });
    await socket.say(answer, no('sync', undefined, 'Event not found.'));
    assert.deepEqual(await standing(message), answer);
  });

  test('an answer that nobody waits for is an error, and ends the trust in pongs', async () => {
    const { shark, socket, told } = await opened();
    shark.message('books.1', 1);
    await socket.pong();
    const late = no('message', 'books.1', 'No.');
    await socket.say(late);
    assert.equal(told.error[0].message, 'Nobody waits for this answer.');
    assert.deepEqual(told.error[0].event, late);
    shark.message('books.1', 2);
    assert.equal(socket.sent.at(-1).event, 'sync');
  });

  test('a router that answers out of order is left', async () => {
    const { shark, socket, told } = await opened();
    shark.subscribe('books.1');
    shark.message('books.1', 1);
    await socket.say(ok('message', 'books.1', { data: 1 }));
    assert.equal(told.close[0].reason, 'The router does not answer in order.');
    assert.equal(socket.closed, 1005);
  });

  test('what is no event of ours does no harm', async () => {
    const { shark, socket, told } = await opened();
    socket.onmessage({ data: '{' });
    for (const event of [null, 1, 'text', [], {}, { event: 'news' }, { event: 'message' }]) {
      await socket.say(event);
    }
    await socket.say({ event: 'unsubscribe', subscription: 'never.made', error: 'Gone.' });
    assert.deepEqual(told.error.map(({ message }) => message), ['Not JSON.']);
    assert.equal(shark.state, 'open');
  });

  test('data that JSON cannot hold rejects the request and leaves nothing behind', async () => {
    const { shark, socket } = await opened();
    assert.ok((await standing(shark.message('books.1', 1n))) instanceof TypeError);
    assert.ok((await standing(shark.subscribe('books.1', null, { a: 1n }))) instanceof TypeError);
    assert.deepEqual(socket.sent, []);
    shark.subscribe('books.1');
    assert.equal(socket.requests.length, 1);
  });
});

describe('subscriptions', () => {
  test('a subscription has its fields, its answer and its messages', async () => {
    const { shark, socket } = await opened();
    const heard = [];
    const handlers = {
      message: (data, event) => heard.push(['message', data, event.author]),
      subscribed: (answer) => heard.push(['subscribed', answer.data]),
    };
    const subscription = shark.subscribe('books.1', handlers, { author: 'a', event: 'x' });
    const other = shark.subscribe('books.2', (data) => heard.push(['other', data]));
    assert.deepEqual(socket.requests, [
      { event: 'subscribe', subscription: 'books.1', author: 'a' },
      { event: 'subscribe', subscription: 'books.2' },
    ]);
    const answer = ok('subscribe', 'books.1', { author: 'a', data: 'now' });
    await socket.say(
      answer,
      { event: 'message', subscription: 'books.1', data: 1, author: 'a' },
      ok('subscribe', 'books.2'),
      { event: 'message', subscription: 'books.2', data: null },
    );
    assert.deepEqual(await subscription, answer);
    assert.equal((await other).subscription, 'books.2');
    assert.deepEqual(heard, [['subscribed', 'now'], ['message', 1, 'a'], ['other', null]]);
  });

  test('all are made again with the same fields, and messages may follow at once', async () => {
    const all = await opened({ ticket: () => 't' });
    await all.socket.say({ event: 'auth', status: 'ok' });
    const heard = [];
    const fields = { author: 'a' };
    const handlers = {
      message: (data) => heard.push(data),
      subscribed: ({ data }) => heard.push(data),
    };
    await subscribed(all, 'books.1', handlers, fields);
    await subscribed(all, 'books.2');
    fields.author = 'changed by its owner since';
    all.shark.on('open', () => all.shark.message('books.1', 'hello'));
    await all.socket.lose();
    await all.clock.advance(1000);
    await all.socket.open();
    assert.equal(all.socket.requests.length, 1);
    await all.socket.say({ event: 'auth', status: 'ok' });
    assert.deepEqual(all.socket.requests.slice(1), [
      { event: 'subscribe', subscription: 'books.1', author: 'a' },
      { event: 'subscribe', subscription: 'books.2' },
      { event: 'message', subscription: 'books.1', data: 'hello' },
    ]);
    await all.socket.say(
      ok('subscribe', 'books.1', { data: 'state' }),
      ok('subscribe', 'books.2'),
      { event: 'message', subscription: 'books.1', data: 'news' },
    );
    assert.deepEqual(heard, [undefined, 'state', 'news']);
  });

  test('a refusal rejects, and the subscription is not asked for again', async () => {
    const all = await opened();
    const promise = all.shark.subscribe('books.1');
    const answer = no('subscribe', 'books.1', 'Service unavailable.');
    await all.socket.say(answer);
    const error = await standing(promise);
    assert.equal(error.message, 'Service unavailable.');
    assert.deepEqual(error.event, answer);
    await all.socket.lose();
    await all.clock.advance(1000);
    await all.socket.open();
    assert.deepEqual(all.socket.sent, []);
  });

  test('a second subscribe is refused as the router would', async () => {
    const all = await opened();
    await subscribed(all, 'books.1');
    const error = await standing(all.shark.subscribe('books.1'));
    assert.deepEqual(error.event, no('subscribe', 'books.1', 'Already subscribed.'));
  });

  test('unsubscribe: the answer ends it, a refusal keeps it', async () => {
    const all = await opened();
    const heard = [];
    await subscribed(all, 'books.1', (data) => heard.push(data));
    const refused = all.shark.unsubscribe('books.1');
    await all.socket.say(no('unsubscribe', 'books.1', 'Stay.'));
    assert.equal((await standing(refused)).event.error, 'Stay.');
    const done = all.shark.unsubscribe('books.1');
    await all.socket.say({ event: 'message', subscription: 'books.1', data: 'last' });
    await all.socket.say(ok('unsubscribe', 'books.1', { data: 'bye' }));
    assert.equal((await standing(done)).data, 'bye');
    await all.socket.say({ event: 'message', subscription: 'books.1', data: 'too late' });
    assert.deepEqual(heard, ['last']);
    const again = await standing(all.shark.unsubscribe('books.1'));
    assert.equal(again.event.error, 'Subscription does not exist.');
  });

  test('the router ends a subscription: its handler is told, it is not made again', async () => {
    const all = await opened();
    const ended = [];
    await subscribed(all, 'books.1', { ended: (event) => ended.push(event) });
    await subscribed(all, 'books.2', () => {});
    const end = (subscription) => ({ event: 'unsubscribe', subscription, error: 'Unauthorized.' });
    await all.socket.say(end('books.1'), end('books.2'));
    assert.deepEqual(ended, [end('books.1')]);
    assert.deepEqual(all.told.error.map(({ message }) => message), ['books.2: Unauthorized.']);
    assert.deepEqual(all.told.error[0].event, end('books.2'));
    await all.socket.lose();
    await all.clock.advance(1000);
    await all.socket.open();
    assert.deepEqual(all.socket.sent, []);
  });

  test('refused after a reconnection: ended, unless the service only has a bad time', async () => {
    const all = await opened();
    const heard = [];
    await subscribed(all, 'books.1', { ended: (event) => heard.push(event.error) });
    await subscribed(all, 'books.2', { subscribed: () => heard.push('back') });
    heard.length = 0;
    await all.socket.lose();
    await all.clock.advance(500);
    await all.socket.open();
    const unavailable = no('subscribe', 'books.2', 'Service unavailable.');
    await all.socket.say(no('subscribe', 'books.1', 'Unauthorized.'), unavailable);
    await all.socket.pong();
    assert.deepEqual(heard, ['Unauthorized.']);
    assert.equal(all.socket.requests.length, 2);
    await all.clock.advance(500);
    assert.equal(all.socket.requests.length, 3);
    await all.socket.say(unavailable);
    await all.clock.advance(999);
    assert.equal(all.socket.requests.length, 3);
    await all.clock.advance(1);
    await all.socket.say(ok('subscribe', 'books.2'));
    assert.deepEqual(heard, ['Unauthorized.', 'back']);
  });

  test('one that is being tried again can be given up', async () => {
    const all = await opened();
    await subscribed(all, 'books.1');
    await all.socket.lose();
    await all.clock.advance(500);
    await all.socket.open();
    await all.socket.say(no('subscribe', 'books.1', 'Service unavailable.'));
    await all.socket.pong();
    assert.equal(await standing(all.shark.unsubscribe('books.1')), undefined);
    await all.clock.advance(5000);
    assert.equal(all.socket.requests.length, 1);
  });
});

describe('disconnected', () => {
  test('subscribe is remembered, message is rejected, unsubscribe forgets', async () => {
    const { shark, socket } = fake();
    const kept = shark.subscribe('books.1', null, { author: 'a' });
    const given = shark.subscribe('books.2');
    const error = await standing(shark.message('books.1', 1));
    assert.equal(error.message, 'Not connected.');
    assert.equal(error.event, undefined);
    assert.equal(await standing(shark.unsubscribe('books.2')), undefined);
    assert.equal((await standing(given)).message, 'Unsubscribed.');
    await socket.open();
    assert.deepEqual(socket.requests, [
      { event: 'subscribe', subscription: 'books.1', author: 'a' },
    ]);
    await socket.say(ok('subscribe', 'books.1'));
    assert.equal((await kept).status, 'ok');
  });

  test('while authenticating likewise', async () => {
    const { shark, socket } = await opened({ ticket: () => 't' });
    shark.subscribe('books.1');
    assert.equal((await standing(shark.message('books.1', 1))).message, 'Not connected.');
    assert.equal(socket.requests.length, 1);
    await socket.say({ event: 'auth', status: 'ok' });
    assert.equal(socket.requests.length, 2);
  });

  test('when the connection is lost, what was under way is settled', async () => {
    const all = await opened();
    await subscribed(all, 'books.1');
    await subscribed(all, 'books.2');
    const message = all.shark.message('books.1', 1);
    const leaving = all.shark.unsubscribe('books.2');
    const joining = all.shark.subscribe('books.3');
    await all.socket.lose();
    const lost = await standing(message);
    assert.equal(lost.message, 'The connection was lost before the answer.');
    assert.equal(lost.event, undefined);
    assert.equal(await standing(leaving), undefined);
    assert.equal(await standing(joining), 'pending');
    await all.clock.advance(500);
    await all.socket.open();
    const names = all.socket.requests.map(({ subscription }) => subscription);
    assert.deepEqual(names, ['books.1', 'books.3']);
    await all.socket.say(ok('subscribe', 'books.1'), ok('subscribe', 'books.3'));
    assert.equal((await joining).status, 'ok');
  });

  test('a subscription made anew is not touched by the end of the one before', async () => {
    const all = await opened();
    await subscribed(all, 'books.1', { ended: () => {} });
    all.shark.unsubscribe('books.1');
    await all.socket.say({ event: 'unsubscribe', subscription: 'books.1', error: 'Gone.' });
    const anew = all.shark.subscribe('books.1');
    await all.socket.lose();
    await all.clock.advance(500);
    await all.socket.open();
    await all.socket.say(ok('subscribe', 'books.1'));
    assert.equal((await anew).status, 'ok');
  });

  test('so many promises may wait, and no more', async () => {
    const all = await opened({ maxPending: 3 });
    const messages = [1, 2, 3].map((data) => all.shark.message('books.1', data));
    const sent = all.socket.sent.length;
    const over = [
      all.shark.message('books.1', 4),
      all.shark.subscribe('books.1'),
      all.shark.unsubscribe('books.1'),
    ];
    for (const promise of over) {
      assert.equal((await standing(promise)).message, 'Too many requests are waiting.');
    }
    assert.equal(all.socket.sent.length, sent);
    await all.socket.pong(2);
    await Promise.all(messages.slice(0, 2));
    const fourth = all.shark.message('books.1', 4);
    await all.socket.pong();
    assert.equal(await standing(fourth), undefined);
  });

  test('the bound holds for what is remembered without a connection', async () => {
    const { shark } = fake({ maxPending: 2 });
    shark.subscribe('books.1');
    shark.subscribe('books.2');
    const third = await standing(shark.subscribe('books.3'));
    assert.equal(third.message, 'Too many requests are waiting.');
  });
});

describe('back-off', () => {
  /** Loses one connection after the other, each before it stands; gives the delays. */
  async function delays(all, count) {
    for (let round = 0; round < count; round++) {
      await all.socket.lose();
      await all.clock.advance(all.told.close.at(-1).delay);
    }
    return all.told.close.slice(-count).map(({ delay }) => delay);
  }

  test('it doubles up to its bound', async () => {
    const all = fake({ random: () => 0.999_999 });
    const found = (await delays(all, 8)).map((delay) => Math.round(delay));
    assert.deepEqual(found, [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
    assert.equal(all.sockets.length, 9);
  });

  test('its jitter is full', async () => {
    const all = fake();
    const found = [];
    for (all.dice.value of [0, 0.25, 0.75, 0]) found.push(...(await delays(all, 1)));
    assert.deepEqual(found, [0, 500, 3000, 0]);
  });

  test('after very many failures the wait is still a number', async () => {
    const all = fake({ baseDelay: 1, maxDelay: 2 });
    assert.equal((await delays(all, 1100)).at(-1), 1);
  });

  test('only a connection that stays open resets it', async () => {
    const all = fake();
    await delays(all, 4);
    for (const [life, delay] of [[0, 8000], [9999, 16_000], [10_000, 500], [0, 1000]]) {
      await all.socket.open();
      await all.clock.advance(life);
      assert.deepEqual(await delays(all, 1), [delay]);
    }
  });

  test('time spent before the ticket was accepted does not count as open', async () => {
    const all = fake({ ticket: () => 't' });
    await delays(all, 1);
    await all.socket.open();
    await all.clock.advance(14_000);
    await all.socket.say({ event: 'auth', status: 'ok' });
    await all.clock.advance(9000);
    assert.deepEqual(await delays(all, 1), [1000]);
  });

  // The table of the module's documentation: the least and the greatest first wait.
  const codes = [
    [1005, 0, 1000], [1006, 0, 1000], [1011, 0, 1000], [3000, 0, 1000],
    [1000, 0, 5000], [1001, 0, 5000], [1012, 0, 5000],
    [1013, 10_000, 11_000],
    [1008, 30_000, 31_000], [4000, 30_000, 31_000], [4999, 30_000, 31_000],
    [1002, 60_000, 61_000], [1003, 60_000, 61_000], [1007, 60_000, 61_000],
    [1009, 60_000, 61_000], [1010, 60_000, 61_000],
  ];
  for (const [code, least, greatest] of codes) {
    test(`code ${code} waits ${least} to ${greatest} ms`, async () => {
      for (const [value, delay] of [[0, least], [1, greatest]]) {
        const all = await opened();
        all.dice.value = value;
        await all.socket.lose(code, 'why');
        assert.deepEqual(all.told.close, [{ code, reason: 'why', delay }]);
        if (delay) await all.clock.advance(delay - 1);
        assert.equal(all.sockets.length, 1);
        await all.clock.advance(1);
        assert.equal(all.sockets.length, 2);
      }
    });
  }

  test('repeated failures outgrow the spread', async () => {
    const all = fake({ random: () => 1 });
    for (const delay of [5000, 5000, 5000, 8000, 16_000]) {
      await all.socket.lose(1012);
      assert.equal(all.told.close.at(-1).delay, delay);
      await all.clock.advance(delay);
    }
  });
});

describe('watchdog', () => {
  test('a silent connection is given up', async () => {
    const all = await opened();
    await all.clock.advance(14_999);
    assert.deepEqual(all.socket.sent, []);
    await all.clock.advance(1);
    assert.deepEqual(all.socket.sent, [{ event: 'ping', data: '1' }]);
    await all.clock.advance(9999);
    assert.equal(all.shark.state, 'open');
    await all.clock.advance(1);
    assert.deepEqual(all.told.close, [{ code: 1006, reason: 'The router is silent.', delay: 500 }]);
    assert.equal(all.sockets[0].closed, 1005);
    await all.clock.advance(500);
    assert.equal(all.sockets.length, 2);
  });

  test('a pong keeps it, and so does anything else', async () => {
    const all = await opened();
    for (let round = 0; round < 10; round++) {
      await all.clock.advance(24_999);
      if (round % 2) await all.socket.pong();
      else await all.socket.say({ event: 'message', subscription: 'books.1', data: 1 });
    }
    assert.equal(all.told.close.length, 0);
    assert.equal(all.socket.sent.length, 10);
  });

  test('a connection that is never silent is never pinged', async () => {
    const all = await opened();
    for (let round = 0; round < 10; round++) {
      await all.clock.advance(10_000);
      await all.socket.say({ event: 'message', subscription: 'books.1', data: 1 });
    }
    assert.deepEqual(all.socket.sent, []);
  });

  test('while a service is busy with a request the pong may be late', async () => {
    const all = await opened();
    const message = all.shark.message('books.1', 1);
    await all.clock.advance(74_999);
    assert.equal(all.shark.state, 'open');
    await all.clock.advance(1);
    assert.equal((await standing(message)).message, 'The connection was lost before the answer.');
    assert.equal(all.told.close[0].reason, 'The router is silent.');
  });

  test('pongs that come at once are expected at once, whatever the service does', async () => {
    const all = await opened({ pongsInOrder: false });
    const message = all.shark.message('books.1', 1);
    await all.clock.advance(24_999);
    await all.socket.pong();
    await all.clock.advance(24_999);
    assert.equal(all.shark.state, 'open');
    await all.clock.advance(1);
    assert.equal(all.shark.state, 'waiting');
    assert.ok((await standing(message)) instanceof SocketSharkError);
  });
});

describe('the end', () => {
  for (const state of ['connecting', 'authenticating', 'open', 'waiting']) {
    test(`close() while ${state} is for good`, async () => {
      const all = fake({ ticket: state === 'authenticating' ? () => 't' : undefined });
      if (state !== 'connecting') await all.socket.open();
      if (state === 'waiting') await all.socket.lose();
      const subscription = all.shark.subscribe('books.1');
      assert.equal(all.shark.state, state);
      all.told.close.length = 0;
      all.shark.close();
      assert.equal(all.shark.state, 'closed');
      assert.deepEqual(all.told.close, [{ code: 1000, reason: '', delay: null }]);
      assert.equal((await standing(subscription)).message, 'Closed.');
      assert.equal(all.clock.waiting, 0);
      assert.equal(all.socket.closed, state === 'waiting' ? undefined : 1000);
      await all.socket.lose(1000);
      all.shark.close();
      assert.equal(all.sockets.length, 1);
      assert.equal(all.told.close.length, 1);
      for (const request of ['subscribe', 'unsubscribe', 'message']) {
        assert.equal((await standing(all.shark[request]('books.1'))).message, 'Closed.');
      }
    });
  }

  test('close() from any listener is obeyed', async () => {
    for (const name of ['open', 'close', 'state', 'error']) {
      const all = fake({ ticket: () => 't' });
      all.shark.on(name, () => all.shark.close());
      await all.socket.open();
      await all.socket.say(name === 'open' ? ok('auth') : no('auth', undefined, 'No.'));
      await all.clock.advance(100_000);
      assert.equal(all.shark.state, 'closed', name);
      assert.equal(all.sockets.length, 1, name);
      assert.equal(all.clock.waiting, 0, name);
    }
  });

  test('what waits for an answer is rejected', async () => {
    const { shark } = await opened();
    const waiting = [shark.subscribe('books.1'), shark.message('books.1', 1)];
    shark.close();
    for (const promise of waiting) assert.equal((await standing(promise)).message, 'Closed.');
  });

  test('a listener that throws is reported and stops nobody else', async (t) => {
    const reports = [];
    t.mock.method(globalThis, 'queueMicrotask', (report) => reports.push(report));
    const { shark, socket, told } = fake();
    shark.on('open', () => {
      throw new Error('of the page');
    });
    const stop = shark.on('open', () => assert.fail('not listening any more'));
    stop();
    shark.on('open', () => told.open.push('after it'));
    await socket.open();
    assert.equal(told.open.at(-1), 'after it');
    assert.equal(reports.length, 1);
    assert.throws(reports[0], { message: 'of the page' });
  });
});
