// What the client weighs, and how it is handed out.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';

import { load } from './real.mjs';

const source = readFileSync(new URL('../../src/demo/socketshark.js', import.meta.url), 'utf8');

test('minified and compressed it has at most 4 KiB', async () => {
  const { code } = await load('terser').minify(source, { module: true });
  const size = gzipSync(code, { level: 9 }).length;
  console.log(`minified ${code.length} bytes, compressed ${size}`);
  assert.ok(size <= 4096, `${size} bytes`);
});

test('it imports nothing', () => {
  assert.doesNotMatch(source, /^\s*import\b|\bimport\(|\brequire\(/m);
});

test('the program prints it', () => {
  const printed = execFileSync(process.env.SOCKETSHARK, ['client-js'], { encoding: 'utf8' });
  assert.equal(printed, source);
});
