import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

import { precompress } from './build/precompress.ts';

const api = process.env.CLAIRVOY_API ?? 'http://127.0.0.1:8080';

export default defineConfig({
  // Relative, so that the page also works behind a path prefix.
  base: './',
  plugins: [svelte(), precompress()],
  build: { target: 'es2022', modulePreload: { polyfill: false } },
  server: { host: '127.0.0.1', proxy: { '/api': api } },
  test: { include: ['src/**/*.test.ts', 'build/**/*.test.ts'], environment: 'node' },
});
