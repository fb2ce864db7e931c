import type { Demand, History, Metric } from './answers';
import type { Subject } from './past';
import { EventParser } from './sse';
import type { State } from './types';

/** Why a request failed, with the HTTP status when the server answered. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number | null,
  ) {
    super(message);
    this.name = 'ApiError';
  }
}

const TOKEN_KEY = 'clairvoy.token';

/** Kept for the tab only. */
export function saveToken(token: string): void {
  sessionStorage.setItem(TOKEN_KEY, token);
}

function headers(accept: string): HeadersInit {
  const token = sessionStorage.getItem(TOKEN_KEY);
  return token ? { Accept: accept, Authorization: `Bearer ${token}` } : { Accept: accept };
}

async function request(path: string, accept: string, signal: AbortSignal): Promise<Response> {
  const url = new URL(path, document.baseURI);
  let response: Response;
  try {
    response = await fetch(url, { headers: headers(accept), signal, cache: 'no-store' });
  } catch (cause) {
    if (signal.aborted) throw cause;
    throw new ApiError(`no answer from ${url.host}`, null);
  }
  if (!response.ok) throw new ApiError(await errorMessage(response), response.status);
  return response;
}

async function errorMessage(response: Response): Promise<string> {
  const fallback = `HTTP ${response.status} ${response.statusText}`.trim();
  try {
    const body: unknown = await response.json();
    const message = (body as { error?: { message?: unknown } }).error?.message;
    return typeof message === 'string' ? message : fallback;
  } catch {
    return fallback;
  }
}

export async function fetchDemand(model: string, windowSeconds: number, signal: AbortSignal): Promise<Demand> {
  const query = new URLSearchParams({ model, window_seconds: String(windowSeconds) });
  const response = await request(`api/v1/demand?${query}`, 'application/json', signal);
  return (await response.json()) as Demand;
}

/** `from` and `to` in Unix seconds. */
export async function fetchHistory(subject: Subject, metric: Metric, [from, to]: [number, number], signal: AbortSignal): Promise<History> {
  const query = new URLSearchParams({ [subject.kind]: subject.name, metric, from: String(from), to: String(to) });
  const response = await request(`api/v1/history?${query}`, 'application/json', signal);
  return (await response.json()) as History;
}

/** Reads the state stream and calls `onState` for each; returns when the server ends it. */
export async function followStates(onState: (state: State) => void, signal: AbortSignal): Promise<void> {
  const response = await request('api/v1/stream', 'text/event-stream', signal);
  const reader = response.body?.getReader();
  if (!reader) throw new ApiError('the answer has no body', response.status);
  const parser = new EventParser();
  const decoder = new TextDecoder();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    for (const event of parser.push(decoder.decode(value, { stream: true }))) {
      if (event.event === 'state') onState(JSON.parse(event.data) as State);
    }
  }
}
