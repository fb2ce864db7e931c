// Checks the view of the past: node e2e/history.mjs URL. Ends with 0 when it works, 1 when not, 2 without a Chromium.
import { watchErrors, withBrowser } from './browser.mjs';

const base = process.argv[2];
if (!base) {
  console.error('usage: node e2e/history.mjs URL');
  process.exit(1);
}
const LIMIT_MS = 15_000;

const failures = await withBrowser({ viewport: { width: 1440, height: 900 } }, async (context) => {
  const page = await context.newPage();
  page.setDefaultTimeout(LIMIT_MS);
  const errors = watchErrors(page);
  const view = page.locator('[data-testid="past-view"]');
  const chart = view.locator('.chart');
  const asked = [];
  page.on('request', (request) => request.url().includes('/api/v1/history') && asked.push(new URL(request.url()).searchParams));
  const span = () => Number(asked.at(-1).get('to')) - Number(asked.at(-1).get('from'));
  const check = (what, holds) => {
    console.log(`${holds ? 'ok    ' : 'FAILED'} ${what}`);
    if (!holds) errors.push(what);
  };

  try {
    await page.goto(base, { waitUntil: 'domcontentloaded' });
    await page.click('[data-testid="nav-history"]');
    await chart.locator('canvas').waitFor();
    check('the link in the header opens it', new URL(page.url()).hash === '#/history');
    check('the last hour of the first model is asked for', span() === 3600 && asked.at(-1).has('model'));

    // Four times: from an hour to 14 days.
    await page.locator('input[type="radio"]:checked').focus();
    for (const seconds of [21_600, 86_400, 604_800, 1_209_600]) {
      const answer = page.waitForResponse((response) => response.url().includes('/api/v1/history'));
      await page.keyboard.press('ArrowRight');
      await answer;
      check(`the arrow keys choose ${seconds / 3600} h`, span() === seconds);
    }
    await page.selectOption('[data-testid="past-metric"]', 'running');
    await view.locator('h3', { hasText: 'Running requests' }).waitFor();
    const backend = await page.locator('[data-testid="past-subject"] optgroup[label="Backends"] option').first().getAttribute('value');
    await page.selectOption('[data-testid="past-subject"]', backend);
    await page.waitForFunction(() => location.hash.includes('backend='));
    const { hash } = new URL(page.url());
    check('the address names the choice', hash.includes('metric=running') && hash.includes('range=14d'));

    await page.reload();
    await page.waitForSelector('[data-testid="past-view"][data-step]');
    check('the address brings the choice back', asked.at(-1).has('backend') && asked.at(-1).get('metric') === 'running');
    if ((await chart.count()) > 0) {
      await chart.focus();
      await page.keyboard.press('Home');
      const reading = page.locator('[data-testid="past-reading"]');
      await reading.filter({ hasText: /\d/ }).waitFor();
      check('the keys read values off the chart', true);
      await page.keyboard.press('Escape');
      await page.waitForFunction(() => document.querySelector('[data-testid="past-reading"]').textContent.trim() === '');
    }

    await page.goBack();
    await page.waitForSelector('[data-testid="key-figures"]');
    check('the way back leads to the overview', true);
  } catch (error) {
    errors.push(error.message.split('\n')[0]);
  }
  return errors;
});

for (const failure of failures) console.error(`FAILED: ${failure}`);
console.log(failures.length === 0 ? 'the history works' : 'the history does not work');
process.exitCode = failures.length === 0 ? 0 : 1;
