import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { brotliDecompressSync, gunzipSync } from 'node:zlib';
import { expect, test } from 'vitest';

import { compressFolder } from './precompress';

test('text files get both compressed copies, others none', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'precompress-'));
  try {
    await writeFile(join(folder, 'index.html'), '<p>hello</p>');
    await writeFile(join(folder, 'photo.png'), 'x');
    expect(await compressFolder(folder)).toBe(1);
    expect((await readdir(folder)).sort()).toEqual(['index.html', 'index.html.br', 'index.html.gz', 'photo.png']);
    expect(gunzipSync(await readFile(join(folder, 'index.html.gz'))).toString()).toBe('<p>hello</p>');
    expect(brotliDecompressSync(await readFile(join(folder, 'index.html.br'))).toString()).toBe('<p>hello</p>');
  } finally {
    await rm(folder, { recursive: true });
  }
});
