// A headless Chromium, driven over its DevTools protocol: one page, clicked and looked at.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { WebSocket, until } from './real.mjs';

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-default-apps',
  '--disable-dev-shm-usage',
  '--disable-sync',
  '--no-first-run',
  '--remote-debugging-port=0',
];

const MISSING =
  "chromium is needed in the PATH: tests/run installs Debian's package, where apt-get can";

export class Browser {
  #socket;
  #session;
  #calls = new Map();
  #number = 0;
  /** What the page complained about: exceptions, refused resources, console errors. */
  complaints = [];

  static async start(t, ...flags) {
    const folder = mkdtempSync(join(tmpdir(), 'socketshark-browser-'));
    const stdio = ['ignore', 'ignore', 'pipe'];
    const child = spawn('chromium', [...FLAGS, ...flags, `--user-data-dir=${folder}`], { stdio });
    const ended = once(child, 'close').catch(() => {});
    const kill = () => child.kill('SIGKILL');
    process.once('exit', kill);
    const browser = new Browser();
    t.after(async () => {
      await browser.#call('Browser.close').catch(kill);
      const timer = setTimeout(kill, 5000);
      await ended;
      clearTimeout(timer);
      process.off('exit', kill);
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
    });
    await browser.#attach(await endpoint(child));
    return browser;
  }

  async #attach(url) {
    this.#socket = new WebSocket(url);
    this.#socket.on('message', (text) => this.#hear(JSON.parse(text)));
    await once(this.#socket, 'open');
    const { targetId } = await this.#call('Target.createTarget', { url: 'about:blank' });
    const attached = await this.#call('Target.attachToTarget', { targetId, flatten: true });
    this.#session = attached.sessionId;
    for (const domain of ['Page', 'Runtime', 'Log']) await this.#call(`${domain}.enable`);
  }

  #hear({ id, result, error, method, params }) {
    if (id) {
      const { resolve, reject } = this.#calls.get(id);
      this.#calls.delete(id);
      return error ? reject(new Error(error.message)) : resolve(result);
    }
    if (method === 'Runtime.exceptionThrown') {
      const { exception, text } = params.exceptionDetails;
      this.complaints.push(exception?.description ?? text);
    }
    if (method === 'Log.entryAdded' && params.entry.level === 'error') {
      this.complaints.push(`${params.entry.text} ${params.entry.url ?? ''}`);
    }
  }

  #call(method, params = {}) {
    const id = ++this.#number;
    const ofPage = !/^(Browser|Target)\./.test(method);
    const sessionId = ofPage ? this.#session : undefined;
    this.#socket.send(JSON.stringify({ id, method, params, sessionId }));
    return new Promise((resolve, reject) => this.#calls.set(id, { resolve, reject }));
  }

  async open(url) {
    await this.#call('Page.navigate', { url });
    await until('the page', () => this.run('document.readyState === "complete"'));
  }

  /** The value of an expression in the page. */
  async run(expression) {
    const options = { expression, returnByValue: true, awaitPromise: true };
    const { result, exceptionDetails } = await this.#call('Runtime.evaluate', options);
    if (exceptionDetails) throw new Error(exceptionDetails.exception.description);
    return result.value;
  }

  /** The text that can be seen; empty if there is no such element. */
  async text(selector) {
    return this.run(`document.querySelector(${JSON.stringify(selector)})?.innerText ?? ''`);
  }

  /** Waits until an element says something: a text, or what a regular expression matches. */
  async shows(selector, what) {
    const shown = async () => {
      const text = await this.text(selector);
      return what instanceof RegExp ? what.test(text) : text.includes(what);
    };
    try {
      await until(`${what} in ${selector}`, shown);
    } catch (error) {
      throw new Error(`${error.message}; it says "${await this.text(selector)}"`);
    }
  }

  /** Clicks with the mouse, where the element is. */
  async click(selector) {
    // Where it stays for two frames, and nothing lies over it.
    const place = await until(`a place to click at ${selector}`, () =>
      this.run(`(async () => {
      const element = document.querySelector(${JSON.stringify(selector)});
      if (!element) return null;
      element.scrollIntoView({ block: 'center', behavior: 'instant' });
      const middle = () => {
        const box = element.getBoundingClientRect();
        return { x: box.x + box.width / 2, y: box.y + box.height / 2 };
      };
      const before = middle();
      for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame);
      const { x, y } = middle();
      const rests = x === before.x && y === before.y;
      return rests && element.contains(document.elementFromPoint(x, y)) ? { x, y } : null;
    })()`),
    );
    for (const type of ['mousePressed', 'mouseReleased']) {
      const button = { button: 'left', clickCount: 1 };
      await this.#call('Input.dispatchMouseEvent', { type, ...place, ...button });
    }
  }

  /** Types into a field, in place of what is there. */
  async type(selector, text) {
    await this.run(`(() => {
      const field = document.querySelector(${JSON.stringify(selector)});
      field.focus();
      field.select();
    })()`);
    await this.#call('Input.insertText', { text });
  }

  async press(key) {
    const codes = { Enter: [13, '\r'], Tab: [9, ''], ' ': [32, ' '] };
    const [windowsVirtualKeyCode, text] = codes[key];
    const event = { key, windowsVirtualKeyCode, text };
    await this.#call('Input.dispatchKeyEvent', { type: 'keyDown', ...event });
    await this.#call('Input.dispatchKeyEvent', { type: 'keyUp', ...event });
  }

  /** How the page is looked at from here on. */
  async look({ width, height, dark }) {
    const screen = { width, height, deviceScaleFactor: 1, mobile: width < 600 };
    await this.#call('Emulation.setDeviceMetricsOverride', screen);
    const features = [{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }];
    await this.#call('Emulation.setEmulatedMedia', { features });
  }

  async screenshot(path, whole = false) {
    const options = { format: 'png', captureBeyondViewport: whole };
    if (whole) {
      const { cssContentSize: size } = await this.#call('Page.getLayoutMetrics');
      options.clip = { ...size, scale: 1 };
    }
    const { data } = await this.#call('Page.captureScreenshot', options);
    writeFileSync(path, Buffer.from(data, 'base64'));
  }
}

/** Where a browser says that it can be driven. */
async function endpoint(child) {
  const said = [];
  const failed = once(child, 'error').then(([error]) => {
    throw new Error(`${error.message}; ${MISSING}`);
  });
  const told = (async () => {
    for await (const line of createInterface({ input: child.stderr })) {
      const [, url] = /^DevTools listening on (ws:.*)$/.exec(line) ?? [];
      if (url) return url;
      said.push(line);
    }
    throw new Error(`chromium ended: ${said.join('\n')}`);
  })();
  const url = await Promise.race([told, failed]);
  child.stderr.resume();
  return url;
}
