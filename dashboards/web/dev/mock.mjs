// Serves dist with an invented, moving fleet: node dev/mock.mjs [--port 8090] [--scenario live|empty|token|away]
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { dirname, extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { databaseIsThere, demand, state, SUBJECTS } from './fleet.mjs';
import { past } from './past.mjs';

const { values } = parseArgs({
  options: { port: { type: 'string', default: '8090' }, scenario: { type: 'string', default: 'live' } },
});
const dist = join(dirname(fileURLToPath(import.meta.url)), '..', 'dist');
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };
const TOKEN = 'secret';

const now = () => Date.now() / 1000;

function json(response, status, body) {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

function stream(response) {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  const send = () => response.write(`event: state\ndata: ${JSON.stringify(state(now(), values.scenario))}\n\n`);
  send();
  const timer = setInterval(send, 1000);
  response.on('close', () => clearInterval(timer));
}

async function file(response, path) {
  const name = normalize(path === '/' ? '/index.html' : path);
  try {
    const bytes = await readFile(join(dist, name));
    response.writeHead(200, { 'content-type': TYPES[extname(name)] ?? 'application/octet-stream' }).end(bytes);
  } catch {
    json(response, 404, { error: { message: `${name} not found; run npm run build`, type: 'not_found' } });
  }
}

const server = createServer((request, response) => {
  const url = new URL(request.url, 'http://localhost');
  const api = url.pathname.startsWith('/api/');
  if (api && values.scenario === 'token' && request.headers.authorization !== `Bearer ${TOKEN}`) {
    json(response, 401, { error: { message: 'a bearer token is needed', type: 'unauthorized' } });
  } else if (url.pathname === '/api/v1/stream') {
    stream(response);
  } else if (url.pathname === '/api/v1/state') {
    json(response, 200, state(now(), values.scenario));
  } else if (url.pathname === '/api/v1/demand') {
    const model = url.searchParams.get('model') ?? '';
    const body = demand(model, Number(url.searchParams.get('window_seconds') ?? 600), now());
    if (!body) json(response, 404, { error: { message: `no model ${model}`, type: 'not_found' } });
    else json(response, 200, values.scenario === 'empty' ? { ...body, actual: [], issued: [], latest: null } : body);
  } else if (url.pathname === '/api/v1/history') {
    const answer = past(url.searchParams, SUBJECTS, now());
    if (!databaseIsThere(now(), values.scenario)) json(response, 503, { error: { message: 'the database is away', type: 'unavailable' } });
    else if (!answer.body) json(response, answer.status, { error: { message: answer.message, type: 'not_found' } });
    else json(response, 200, values.scenario === 'empty' ? { ...answer.body, points: [] } : answer.body);
  } else {
    void file(response, url.pathname);
  }
});

server.listen(Number(values.port), '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${server.address().port}/`);
});
