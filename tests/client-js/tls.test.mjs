// A router behind TLS, as a browser meets it: ROUTER is its wss:// URL.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Browser } from './browser.mjs';

const URL = process.env.ROUTER;

/** Opens a socket in the page, sends an event, and gives the first answer. */
const exchange = (event) => `new Promise((resolve, reject) => {
  const socket = new WebSocket(${JSON.stringify(URL)});
  socket.onopen = () => socket.send(${JSON.stringify(JSON.stringify(event))});
  socket.onmessage = ({ data }) => resolve(data);
  socket.onclose = ({ code }) => reject(new Error('closed with ' + code));
})`;

test('a browser that trusts the certificate is served', { timeout: 120_000 }, async (t) => {
  const browser = await Browser.start(t, '--ignore-certificate-errors');
  for (const data of ['one', 'two', 'three']) {
    const answer = await browser.run(exchange({ event: 'ping', data }));
    assert.deepEqual(JSON.parse(answer), { event: 'pong', data });
  }
});

test('one that does not is not', { timeout: 120_000 }, async (t) => {
  const browser = await Browser.start(t);
  await assert.rejects(browser.run(exchange({ event: 'ping' })), /closed with 1006/);
});
