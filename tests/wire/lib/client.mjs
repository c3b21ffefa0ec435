// One Wire client: a Chromium of its own in a namespace of its own, and the page that runs the client. Owns the browser
// and the client's log; judges nothing.

import { appendFileSync, chmodSync, readFileSync, writeFileSync, existsSync } from 'node:fs';
import path from 'node:path';
import { external, pageScript } from './external.mjs';
import { clientNamespace } from './namespaces.mjs';
import { until } from './wait.mjs';

const PAGE = 'https://client.test/';
const CHROMIUM = process.env.SLUICE_CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = [
  '--use-fake-ui-for-media-stream',
  '--use-fake-device-for-media-stream',
  '--autoplay-policy=no-user-gesture-required',
  '--ignore-certificate-errors',
  '--disable-gpu',
  '--disable-background-networking',
  '--disable-background-timer-throttling',
  '--disable-backgrounding-occluded-windows',
  '--disable-renderer-backgrounding',
  '--disable-component-update',
  '--disable-sync',
  '--no-first-run',
];

export class Client {
  constructor(lab, number, user) {
    this.lab = lab;
    this.number = number;
    this.user = user;
    this.log = path.join(lab.directory, `${user}.log`);
    writeFileSync(this.log, '');
  }

  /** Starts the browser and loads the page. */
  async open() {
    const wrapper = path.join(this.lab.directory, `chromium-${this.number}`);
    writeFileSync(wrapper, `#!/bin/sh\nexec ip netns exec ${clientNamespace(this.number)} ${CHROMIUM} "$@"\n`);
    chmodSync(wrapper, 0o755);
    this.browser = await external('playwright-core').chromium.launch({
      executablePath: wrapper, args: FLAGS, handleSIGINT: false, handleSIGTERM: false, handleSIGHUP: false,
    });
    const context = await this.browser.newContext({ ignoreHTTPSErrors: true });
    // The page's address is public to the browser, the SFT's private: that takes a permission of its own.
    await context.grantPermissions(['camera', 'microphone', 'local-network-access']);
    this.page = await context.newPage();
    this.page.on('console', message => this.note(`console ${message.type()}: ${message.text()}`));
    await this.page.exposeFunction('logged', (level, text) => this.note(`${level} ${text}`));
    await this.page.exposeFunction('backendSend', message => this.lab.backend.send(message));
    // The page needs a secure origin and no server; once it is there, nothing is intercepted any more, so that
    // every request to the SFT is the browser's own, with the preflight it thinks fit.
    await this.page.route(PAGE, route => route.fulfill({ contentType: 'text/html',
      body: '<!doctype html><meta charset="utf-8"><title>client</title><body></body>' }));
    await this.page.goto(PAGE);
    await this.page.unroute(PAGE);
    await this.page.addScriptTag({ content: pageScript() });
  }

  /** Opens the page if need be and makes the client a user who can call. */
  async create(options = {}) {
    if (!this.browser) await this.open();
    const { members, conversation } = this.lab;
    await this.page.evaluate(given => window.client.create(given), {
      user: this.user, conversation, members, sft: { url: this.lab.service.url, ...this.lab.service.credentials },
      ...options,
    });
    await this.lab.backend.add(this.user, message => this.call('deliver', message));
  }

  call(name, ...args) {
    return this.page.evaluate(([what, given]) => window.client[what](...given), [name, args]);
  }

  start = () => this.call('start');
  join = () => this.call('join');
  leave = () => this.call('leave');
  seen = () => this.call('seen');
  stats = () => this.call('stats');
  freezes = reset => this.call('freezes', reset);

  /** Waits until `probe(seen, stats)` gives something true and returns it. */
  until(what, seconds, probe) {
    return until(`${this.user}: ${what}`, seconds, async () => probe(await this.seen(), await this.stats()),
      () => this.evidence());
  }

  note(line) {
    appendFileSync(this.log, `${new Date().toISOString()} ${line}\n`);
  }

  text() {
    return existsSync(this.log) ? readFileSync(this.log, 'utf8') : '';
  }

  /** What a failure's reader wants to see first. */
  async evidence() {
    try {
      const { sft, ...seen } = await this.seen();
      const requests = sft.map(({ offer: _offer, request: _request, ...rest }) => rest);
      return JSON.stringify({ seen, requests, stats: await this.stats() }, null, 1);
    } catch (error) {
      return String(error);
    }
  }

  /** Kills the browser as a crash would: nothing is said to anybody. */
  async kill() {
    this.lab.backend.remove(this.user);
    const gone = new Promise(resolve => this.browser.once('disconnected', resolve));
    const { pid } = await this.processInfo();
    process.kill(pid, 'SIGKILL');
    await gone;
    this.browser = undefined;
  }

  async processInfo() {
    const session = await this.browser.newBrowserCDPSession();
    const { processInfo } = await session.send('SystemInfo.getProcessInfo');
    return { pid: processInfo.find(one => one.type === 'browser').id };
  }

  async close() {
    this.lab.backend.remove(this.user);
    await this.browser?.close().catch(() => {});
    this.browser = undefined;
  }
}
