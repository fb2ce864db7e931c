// Pictures of the page in both themes: node e2e/screenshots.mjs URL OUTDIR [WIDTHxHEIGHT ...]
// A URL that ends in #/history?... gives pictures of that page, by the name of it.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

import { withBrowser } from './browser.mjs';

const [url, folder, ...sizes] = process.argv.slice(2);
if (!url || !folder) {
  console.error('usage: node e2e/screenshots.mjs URL OUTDIR [WIDTHxHEIGHT ...]');
  process.exit(1);
}
const subject = new URL(url).hash.startsWith('#/history') ? 'history' : 'dashboard';
mkdirSync(folder, { recursive: true });

const wanted = (sizes.length > 0 ? sizes : ['1440x900', '390x844']).map((size) => size.split('x').map(Number));
for (const [width, height] of wanted) {
  for (const colorScheme of ['light', 'dark']) {
    await withBrowser({ viewport: { width, height }, colorScheme, deviceScaleFactor: width < 640 ? 2 : 1 }, async (context) => {
      const page = await context.newPage();
      await page.goto(url);
      // A picture is worth taking of an empty, locked or lost page too, so a missing chart is no error.
      await page.waitForSelector('[data-testid="model-panel"] canvas, [data-testid="past-view"] canvas', { timeout: 5000 }).catch(() => {});
      await page.waitForTimeout(Number(process.env.SETTLE_MS ?? 3000));
      const path = join(folder, `${subject}-${colorScheme}-${width}.png`);
      await page.screenshot({ path, fullPage: true });
      console.log(path);
    });
  }
}
