// Where the fetched test clients are (scripts/test-clients --fetch puts them there), how to load them, and the bundle of
// the page. Nothing of it is in the tree: the Wire client is GPL-3.0 and only tested against.

import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');
export const cache = process.env.SLUICE_CLIENTS ?? path.join(root, 'target/clients');
const pages = path.join(root, 'tests/wire/page');

/** A fetched package, by name. */
export function external(name) {
  if (!existsSync(path.join(cache, 'node_modules', name))) {
    throw new Error(`${name} is not in ${cache}: run scripts/test-clients --fetch`);
  }
  return createRequire(path.join(cache, 'package.json'))(name);
}

/** The page's script with the client inside, built when the page or the client changed. Returns its text. */
export function pageScript() {
  const hash = createHash('sha256').update(readFileSync(path.join(cache, 'package-lock.json')));
  for (const name of readdirSync(pages).sort()) hash.update(name).update(readFileSync(path.join(pages, name)));
  const file = path.join(cache, `page-${hash.digest('hex').slice(0, 16)}.js`);
  if (!existsSync(file)) {
    mkdirSync(cache, { recursive: true });
    const built = external('esbuild').buildSync({
      entryPoints: [path.join(pages, 'page.js')],
      bundle: true,
      platform: 'browser',
      format: 'iife',
      external: ['fs', 'path', 'ws', 'crypto'],
      nodePaths: [path.join(cache, 'node_modules')],
      write: false,
    });
    writeFileSync(file, built.outputFiles[0].contents);
  }
  return readFileSync(file, 'utf8');
}
