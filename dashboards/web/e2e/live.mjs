// Checks that the page is alive and opens a backend's details: node e2e/live.mjs URL. Ends with 0 when it is, 1 when not, 2 without a Chromium.
import { watchErrors, withBrowser } from './browser.mjs';

const url = process.argv[2];
if (!url) {
  console.error('usage: node e2e/live.mjs URL');
  process.exit(1);
}
const LIMIT_MS = 30_000;

/** The texts that must move, as a reader sees them. */
function read() {
  const texts = (id) => [...document.querySelectorAll(`[data-testid="${id}"]`)].map((node) => node.textContent.trim());
  return {
    connection: document.querySelector('[data-testid="connection"]')?.dataset.phase ?? 'missing',
    demand: texts('model-demand'),
    shares: texts('backend-share'),
    queues: texts('backend-queue'),
    updated: texts('updated').join(),
    backends: document.querySelectorAll('[data-testid="backend-row"]').length,
    proxies: document.querySelectorAll('[data-testid="proxy-row"]').length,
    decisions: document.querySelectorAll('[data-testid="decision-row"]').length,
    charts: document.querySelectorAll('[data-testid="model-panel"] canvas').length,
  };
}

const differs = (a, b) => a.some((text, i) => text !== b[i]);

const passed = await withBrowser({ viewport: { width: 1440, height: 900 } }, async (context) => {
  const page = await context.newPage();
  const errors = watchErrors(page);
  const missing = new Set(['demand', 'a share or queue', 'the update clock', 'live connection']);

  try {
    await page.goto(url, { waitUntil: 'domcontentloaded', timeout: LIMIT_MS });
  } catch (error) {
    console.error(`FAILED: ${url} does not open: ${error.message.split('\n')[0]}`);
    return false;
  }
  await page.waitForSelector('[data-testid="model-demand"]', { timeout: LIMIT_MS }).catch(() => {});
  const first = await page.evaluate(read);
  const deadline = Date.now() + LIMIT_MS;
  let last = first;
  while (missing.size > 0 && Date.now() < deadline) {
    await page.waitForTimeout(500);
    last = await page.evaluate(read);
    if (differs(last.demand, first.demand)) missing.delete('demand');
    if (differs(last.shares, first.shares) || differs(last.queues, first.queues)) missing.delete('a share or queue');
    if (last.updated !== first.updated) missing.delete('the update clock');
    if (last.connection === 'live') missing.delete('live connection');
  }

  const opener = page.locator('[data-testid="backend-row"] button').first();
  await opener.focus({ timeout: 5000 }).catch(() => {});
  await page.keyboard.press('Enter');
  const details = page.locator('[data-testid="backend-details"]').first();
  await details.waitFor({ timeout: 5000 }).catch(() => errors.push('the details of a backend do not open by keyboard'));

  console.log('first', JSON.stringify(first));
  console.log('last ', JSON.stringify(last));
  for (const name of missing) console.error(`FAILED: no change seen in ${LIMIT_MS / 1000} s: ${name}`);
  for (const error of errors) console.error(`FAILED: ${error}`);
  return missing.size === 0 && errors.length === 0;
});

console.log(passed ? 'the dashboard is live' : 'the dashboard is not live');
process.exitCode = passed ? 0 : 1;
