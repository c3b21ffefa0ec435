// The service on loopback, over sockets, for tests that need no network of their own.

import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Service } from './service.mjs';

/** Starts the service and returns it with `close()`, which gives the reasons why it failed. */
export async function loopback(options = {}) {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'sluice-contract-'));
  const service = new Service(directory, { io: 'udp', namespace: null, address: '127.0.0.1', device: 'lo',
    httpsPort: 18_443, mediaPort: 13_480, metrics: '127.0.0.1:19090', ...options });
  const close = async () => {
    const reasons = await service.stop();
    rmSync(directory, { recursive: true, force: true });
    return reasons;
  };
  try {
    await service.start();
  } catch (error) {
    await close();
    throw error;
  }
  return { service, close };
}
