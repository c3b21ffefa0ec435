// A lab: the network, the service and some Wire clients. Owns the order in which they come and go, and that nothing of
// them is left, however the test ends.

import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Backend } from './backend.mjs';
import { Client } from './client.mjs';
import { cut } from './impair.mjs';
import { createClient, createNode, leftovers, removeAll } from './namespaces.mjs';
import { Service } from './service.mjs';

const NAMES = ['alice', 'bob', 'carol', 'dave', 'erin', 'frank'];

const TEMPORARY = os.tmpdir();
let current;

/** Signals end the process only after the namespaces and the run's directory are gone. */
function tidyOnSignals() {
  const numbers = { SIGINT: 2, SIGTERM: 15, SIGHUP: 1 };
  for (const [name, number] of Object.entries(numbers)) {
    process.once(name, () => {
      removeAll();
      if (current) rmSync(current, { recursive: true, force: true });
      process.exit(128 + number);
    });
  }
}

export class Lab {
  static #tidy = false;

  /** `options`: clients (how many), io, name, service (another one than Sluice's), and what Service takes. */
  static async open(options) {
    if (process.getuid() !== 0) throw new Error('network namespaces and AF_XDP need root');
    if (!Lab.#tidy) tidyOnSignals();
    Lab.#tidy = true;
    const lab = new Lab(options);
    try {
      await lab.#build(options);
      return lab;
    } catch (error) {
      lab.failed = true;
      const reasons = await lab.close();
      throw new Error([error.stack ?? String(error), ...reasons].join('\n'));
    }
  }

  constructor(options) {
    this.directory = mkdtempSync(path.join(TEMPORARY, 'sluice-wire-'));
    current = this.directory;
    // The browsers' profiles, which a killed one would leave behind.
    process.env.TMPDIR = path.join(this.directory, 'tmp');
    mkdirSync(process.env.TMPDIR);
    this.name = (options.name ?? 'scenario').replaceAll(/[^a-z0-9]+/gi, '-');
    this.conversation = '6f1c51c2-0000-4000-8000-00000000c0de';
    this.backend = new Backend();
    this.clients = NAMES.slice(0, options.clients).map((user, at) => new Client(this, at + 1, user));
    this.members = this.clients.map(client => ({ userid: client.user, clientid: 'dev' }));
    this.failed = false;
  }

  async #build(options) {
    if (leftovers().length > 0) removeAll();
    createNode();
    for (const client of this.clients) createClient(client.number);
    const make = options.service ?? ((directory, given) => new Service(directory, given));
    this.service = make(this.directory, options);
    await this.service.start();
  }

  /** Creates the clients `from` to `to` (exclusive) and opens their pages, one after the other. */
  async create(options = {}, from = 0, to = this.clients.length) {
    for (const client of this.clients.slice(from, to)) await client.create({ answer: true, ...options });
  }

  cutOff(client, off = true) {
    cut(client.number, off);
  }

  /** Ends everything. Returns the service's reasons of failure; keeps the logs of a failed run. */
  async close() {
    const reasons = [];
    for (const client of this.clients) await client.close();
    try {
      if (this.service) reasons.push(...await this.service.stop());
    } finally {
      const stayed = removeAll();
      if (stayed.length > 0) reasons.push(`could not remove ${stayed.join(', ')}`);
      if (this.failed || reasons.length > 0) this.#keep();
      rmSync(this.directory, { recursive: true, force: true });
      process.env.TMPDIR = TEMPORARY;
      current = undefined;
    }
    return reasons;
  }

  /** Writes down what each side knows, for whoever has to find out why a run failed. */
  async record() {
    for (const client of this.clients) {
      if (client.browser) client.note(`evidence: ${await client.evidence()}`);
    }
    writeFileSync(path.join(this.directory, 'service.txt'), this.service.state?.() ?? '');
  }

  #keep() {
    const kept = process.env.SLUICE_WIRE_LOGS ?? path.join(TEMPORARY, 'sluice-wire-logs');
    const where = path.join(kept, this.name);
    rmSync(where, { recursive: true, force: true });
    mkdirSync(where, { recursive: true });
    const secret = /\.(toml|sock|pem|key)$|^(forwarder|control|tmp|chromium-\d+)$/;
    if (existsSync(this.directory)) {
      cpSync(this.directory, where, { recursive: true, filter: file => !secret.test(path.basename(file)) });
    }
    console.error(`# logs of ${this.name} are in ${where}`);
  }
}

/** Runs one scenario: a lab, `body(lab)`, and the end, which can fail the test as well. */
export async function scenario(options, body) {
  const lab = await Lab.open(options);
  let failure;
  try {
    await body(lab);
  } catch (error) {
    failure = error;
    lab.failed = true;
    await lab.record().catch(problem => console.error(`# ${problem}`));
  }
  const reasons = await lab.close();
  if (failure) {
    if (reasons.length > 0) failure.message += `\nand at the end: ${reasons.join('\n')}`;
    throw failure;
  }
  if (reasons.length > 0) throw new Error(reasons.join('\n'));
}
