// Runs `sluice-forwarder` and `sluice-control` on the media node. Owns their command lines, configuration and logs.

import { spawn, spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { root } from './external.mjs';
import { NODE, NODE_ADDRESS, NODE_DEVICE, inside } from './namespaces.mjs';
import { SECRET, configuration } from './configuration.mjs';
import { until } from './wait.mjs';

export const HTTPS_PORT = 8443;
export const MEDIA_PORT = 3480;

const binaries = () => process.env.SLUICE_BIN ??
  path.join(process.env.CARGO_TARGET_DIR ?? path.join(root, 'target'), 'debug');

/** One process in the node's namespace, its output in a file. */
class Process {
  constructor(name, directory, namespace, args) {
    this.name = name;
    this.log = path.join(directory, `${name}.log`);
    const out = openSync(this.log, 'a');
    const [command, ...rest] = [path.join(binaries(), name), ...args];
    const line = namespace ? inside(namespace, command, ...rest) : [command, ...rest];
    // `ip netns exec` becomes the program: the pid is the program's own.
    this.child = spawn(line[0], line.slice(1), { stdio: ['ignore', out, out] });
    closeSync(out);
    this.ended = new Promise(resolve => this.child.once('exit', (code, signal) => {
      this.result = code ?? signal;
      resolve(this.result);
    }));
    this.child.once('error', error => {
      this.result = String(error);
    });
  }

  get running() {
    return this.result === undefined;
  }

  signal(name) {
    process.kill(this.child.pid, name);
  }

  text() {
    return readFileSync(this.log, 'utf8');
  }

  tail(lines = 20) {
    return this.text().trimEnd().split('\n').slice(-lines).join('\n');
  }

  /** Ends it; returns its exit code, or 'SIGKILL' if it did not end by itself within 5 s. */
  async stop() {
    if (this.running) {
      this.signal('SIGCONT');
      this.signal('SIGTERM');
      const late = setTimeout(() => this.signal('SIGKILL'), 5000);
      await this.ended;
      clearTimeout(late);
    }
    return this.result;
  }
}

/** The media node: both processes. `options`: io (xdp, udp), namespace (null: this one), address, device, tokens, ... */
export class Service {
  constructor(directory, options = {}) {
    this.directory = directory;
    this.options = { io: 'xdp', namespace: NODE, address: NODE_ADDRESS, device: NODE_DEVICE, httpsPort: HTTPS_PORT,
      mediaPort: MEDIA_PORT, metrics: '127.0.0.1:49090', ...options };
    this.url = `https://${this.options.address}:${this.options.httpsPort}`;
    this.socket = path.join(directory, 'table.sock');
    this.adminSocket = path.join(directory, 'control.sock');
    if (options.tokens) {
      this.secretFile = path.join(directory, 'tokens.key');
      writeFileSync(this.secretFile, `${SECRET}\n`, { mode: 0o600 });
    }
  }

  startForwarder() {
    this.forwarder = new Process('sluice-forwarder', this.directory, this.options.namespace, [
      '--interface', this.options.device, '--io', this.options.io, '--socket', this.socket,
      '--state', path.join(this.directory, 'forwarder'), '--polling', 'interrupt']);
  }

  /** kill -9; waits for the end. */
  async killForwarder() {
    this.forwarder.signal('SIGKILL');
    await this.forwarder.ended;
  }

  startControl() {
    const file = path.join(this.directory, 'sluice.toml');
    const state = path.join(this.directory, 'control');
    mkdirSync(state, { recursive: true, mode: 0o700 });
    writeFileSync(file, configuration({
      ...this.options, socket: this.socket, adminSocket: this.adminSocket, secretFile: this.secretFile,
    }), { mode: 0o600 });
    this.control = new Process('sluice-control', this.directory, this.options.namespace,
      ['--config', file, '--state', state]);
  }

  /** Starts both and waits until clients are answered. */
  async start() {
    this.startForwarder();
    this.startControl();
    await until(`${this.url} to answer`, 20, () => {
      for (const one of [this.forwarder, this.control]) {
        if (!one.running) throw new Error(`${one.name} ended with ${one.result}:\n${one.tail()}`);
      }
      return this.get('/sft/status').status === 200;
    }, () => `control:\n${this.control.tail()}\nforwarder:\n${this.forwarder.tail()}`);
  }

  /** One request from the node's own namespace: { status, body }. */
  get(where, ...more) {
    const line = ['curl', '-sk', '-m', '5', '-w', '\n%{http_code}', ...more, `${this.url}${where}`];
    const full = this.options.namespace ? inside(this.options.namespace, ...line) : line;
    const out = spawnSync(full[0], full.slice(1), { encoding: 'utf8' }).stdout ?? '';
    const at = out.lastIndexOf('\n');
    return { status: Number(out.slice(at + 1)), body: out.slice(0, at) };
  }

  #command(...args) {
    const line = [path.join(binaries(), 'sluice'), '--socket', this.socket, '--control', this.adminSocket, ...args];
    const full = this.options.namespace ? inside(this.options.namespace, ...line) : line;
    return spawnSync(full[0], full.slice(1), { encoding: 'utf8', timeout: 20_000 });
  }

  /** What `sluice --json ARGUMENTS` answers. */
  sluice(...args) {
    const done = this.#command('--json', ...args);
    if (done.status !== 0) throw new Error(`\`sluice ${args.join(' ')}\` ended with ${done.status}: ${done.stderr}`);
    return JSON.parse(done.stdout);
  }

  /** All that the service tells about itself, for a reader. */
  state() {
    const commands = ['status', 'conferences', 'participants', 'legs', 'streams', 'counters'];
    return commands.map(name => {
      const { stdout, stderr } = this.#command(name);
      return `$ sluice ${name}\n${stdout}${stderr}`;
    }).join('\n');
  }

  /** Lets running calls go on and takes no new ones. */
  drain() {
    this.sluice('drain');
  }

  /** Reasons why the service failed: it did not live to the end, or its log tells of a panic. */
  async stop() {
    const reasons = [];
    for (const one of [this.control, this.forwarder]) {
      if (!one) continue;
      if (!one.running && !one.expectedEnd) reasons.push(`${one.name} ended by itself with ${one.result}:\n${one.tail()}`);
      const code = await one.stop();
      if (code !== 0 && !one.expectedEnd) reasons.push(`${one.name} ended with ${code} on SIGTERM`);
      const panic = one.text().split('\n').find(line => line.includes('panicked at'));
      if (panic) reasons.push(`${one.name}: ${panic}`);
    }
    return reasons;
  }
}
