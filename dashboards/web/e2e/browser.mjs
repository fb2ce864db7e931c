import { accessSync, constants, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { chromium } from 'playwright-core';

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

function runnable(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** The system's Chromium; ends the process with 2 when there is none. */
function findChromium() {
  const onPath = (process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, 'google-chrome'));
  const places = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', ...onPath];
  const found = places.find((path) => path && runnable(path));
  if (!found) {
    console.error('No Chromium found. Install one: apt-get install chromium (or set CHROMIUM to its path).');
    process.exit(2);
  }
  return found;
}

/** Runs `work` with a context of a fresh profile and closes both. `options` are Playwright's context options. */
export async function withBrowser(options, work) {
  const executablePath = findChromium();
  const profile = mkdtempSync(join(tmpdir(), 'clairvoy-browser-'));
  try {
    const context = await chromium.launchPersistentContext(profile, { executablePath, args: FLAGS, ...options });
    try {
      return await work(context);
    } finally {
      await context.close();
    }
  } finally {
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** Collects what the page reports as wrong. */
export function watchErrors(page) {
  const errors = [];
  page.on('console', (message) => {
    if (message.type() === 'error') errors.push(`console: ${message.text()} (${message.location().url})`);
  });
  page.on('pageerror', (error) => errors.push(`exception: ${error.message}`));
  return errors;
}
