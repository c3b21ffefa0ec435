// Waiting for something to become true, with a bound.

export const sleep = seconds => new Promise(resolve => setTimeout(resolve, seconds * 1000));

/** Asks `probe` again and again until it gives something true, and returns that; after `seconds` it throws. */
export async function until(what, seconds, probe, evidence = () => '') {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const got = await probe();
    if (got) return got;
    if (Date.now() > end) throw new Error(`waited ${seconds} s for ${what}. ${await evidence()}`);
    await sleep(0.1);
  }
}
