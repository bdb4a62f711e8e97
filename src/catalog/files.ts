import { open, readdir, realpath, stat } from 'node:fs/promises';
import { join, sep } from 'node:path';
import { catalogInvalid, type Fault } from './faults.ts';
import { catalogLimits, fileKind } from './layout.ts';

/** Folders of the catalog are at most this deep: `policies/tests`, or a few for key sets. */
const MAX_DEPTH = 5;

/**
 * Names beside a catalog that are no part of it: Git's, the bookkeeping of a mounted Kubernetes ConfigMap, and what editors leave
 * beside a file that is open.
 */
const besides = /^(\.git|\.gitignore|\.gitattributes|\.gitkeep|\.\..*|\..*\.sw[a-z]|\.?#.*|.*~)$/;

/**
 * Reads a catalog folder into `path → text`, the form in which a catalog is checked, stored and sent. Paths have
 * `/` between their parts. Links are followed as long as they stay below the folder.
 * @throws MayflyError `catalog_invalid` with every file that does not belong there, is too large, is not UTF-8 text
 * or leads out of the folder.
 */
export async function readCatalogFiles(folder: string): Promise<Readonly<Record<string, string>>> {
  const root = await realpath(folder).catch(() => undefined);
  if (root === undefined || !(await stat(root)).isDirectory()) {
    throw catalogInvalid([{ file: '.', line: 1, path: '', message: 'the catalog folder is not there' }]);
  }
  const reader = new FolderReader(root);
  await reader.walk('', 1);
  if (reader.faults.length > 0) throw catalogInvalid(reader.faults);
  return Object.fromEntries(reader.found);
}

class FolderReader {
  readonly faults: Fault[] = [];
  readonly found: [path: string, content: string][] = [];
  readonly #root: string;
  #bytes = 0;

  constructor(root: string) {
    this.#root = root;
  }

  async walk(folder: string, depth: number): Promise<void> {
    const names = await readdir(join(this.#root, folder));
    for (const name of names.sort()) {
      if (this.#full()) return;
      if (!besides.test(name)) await this.#enter(folder === '' ? name : `${folder}/${name}`, depth);
    }
  }

  #full(): boolean {
    if (this.found.length < catalogLimits.files && this.#bytes <= catalogLimits.totalBytes) return false;
    const limit = `${catalogLimits.files} files and ${catalogLimits.totalBytes} bytes`;
    this.#refuse('.', `a catalog holds at most ${limit}`);
    return true;
  }

  async #enter(path: string, depth: number): Promise<void> {
    const real = await realpath(join(this.#root, path)).catch(() => undefined);
    if (real === undefined) return this.#refuse(path, 'is a link that leads nowhere');
    if (!real.startsWith(this.#root + sep)) return this.#refuse(path, 'is a link out of the catalog folder');
    const info = await stat(real);
    if (info.isDirectory()) {
      return depth >= MAX_DEPTH ? this.#refuse(path, 'is too deep for a catalog') : this.walk(path, depth + 1);
    }
    if (!info.isFile()) return this.#refuse(path, 'is not a file');
    if (fileKind(path) === undefined) return this.#refuse(path, 'is not a file of the catalog');
    if (info.size > catalogLimits.fileBytes)
      return this.#refuse(path, `is larger than ${catalogLimits.fileBytes} bytes`);
    await this.#read(path, real);
  }

  async #read(path: string, real: string): Promise<void> {
    const handle = await open(real);
    try {
      // One byte more than allowed: a file may have grown since it was looked at.
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(catalogLimits.fileBytes + 1), 0);
      if (bytesRead > catalogLimits.fileBytes)
        return this.#refuse(path, `is larger than ${catalogLimits.fileBytes} bytes`);
      this.#bytes += bytesRead;
      this.found.push([path, new TextDecoder('utf-8', { fatal: true }).decode(buffer.subarray(0, bytesRead))]);
    } catch {
      this.#refuse(path, 'is not UTF-8 text');
    } finally {
      await handle.close();
    }
  }

  #refuse(file: string, message: string): void {
    this.faults.push({ file, line: 1, path: '', message });
  }
}
