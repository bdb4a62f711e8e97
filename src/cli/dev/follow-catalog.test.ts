import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { followCatalog } from './follow-catalog.ts';

let folder: string;
let runs = 0;
let heard: () => void = () => {};
let follower: ReturnType<typeof followCatalog>;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'mayfly-follow-'));
  mkdirSync(join(folder, 'targets'));
  put('targets/a.yaml', '1');
  runs = 0;
  follower = followCatalog(folder, async () => {
    runs++;
    heard();
  });
});
afterEach(async () => {
  await follower.close();
  rmSync(folder, { recursive: true, force: true });
});

function put(path: string, text: string): void {
  writeFileSync(join(folder, path), text);
}

/** Once `apply` has run for what is done here. */
async function applied(change: () => void): Promise<void> {
  const run = new Promise<void>((resolve) => {
    heard = resolve;
  });
  change();
  await run;
}

test('a change in a file is followed, also after an editor has renamed another over it', async () => {
  await applied(() => put('targets/a.yaml', '2'));
  put('targets/a.yaml~', '3');
  await applied(() => renameSync(join(folder, 'targets/a.yaml~'), join(folder, 'targets/a.yaml')));
  await applied(() => put('targets/a.yaml', '4'));
  expect(runs).toBeGreaterThanOrEqual(3);
});

test('a folder that comes is followed, and one that goes and comes again', async () => {
  await applied(() => mkdirSync(join(folder, 'policies')));
  await applied(() => put('policies/a.cedar', '1'));
  await applied(() => put('policies/a.cedar', '2'));
  await applied(() => rmSync(join(folder, 'targets'), { recursive: true }));
  await applied(() => {
    mkdirSync(join(folder, 'targets'));
    put('targets/a.yaml', '1');
  });
  await applied(() => put('targets/a.yaml', '2'));
  expect(runs).toBeGreaterThanOrEqual(6);
});

test('many changes at once are one', async () => {
  await applied(() => {
    for (let n = 0; n < 20; n++) put(`targets/${n}.yaml`, '1');
  });
  expect(runs).toBe(1);
});
