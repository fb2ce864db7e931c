import { ApiError, followStates, saveToken } from './api';
import { retryDelay, SILENCE_MS } from './backoff';
import { remember, type ShareHistory } from './history';
import { followSpool, type Spool } from './spool';
import type { State } from './types';

export type Phase = 'connecting' | 'live' | 'lost' | 'token';

/** The newest state from the server, and how far it can be trusted. */
export class Live {
  state = $state.raw<State | null>(null);
  shares = $state.raw<ShareHistory>(new Map());
  spool = $state.raw<Spool | null>(null);
  phase = $state<Phase>('connecting');
  /** Browser time (ms) at which the newest state came. */
  receivedAt = $state<number | null>(null);
  /** Browser time (ms) since which nothing came. */
  lostSince = $state<number | null>(null);
  retryAt = $state<number | null>(null);
  problem = $state<string | null>(null);

  #attempt = 0;
  #connection: AbortController | null = null;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #silence: ReturnType<typeof setTimeout> | undefined;

  start(): void {
    void this.#connect();
  }

  stop(): void {
    clearTimeout(this.#retry);
    clearTimeout(this.#silence);
    this.#connection?.abort();
    this.#connection = null;
  }

  retryNow(): void {
    this.stop();
    this.start();
  }

  signIn(token: string): void {
    saveToken(token);
    this.phase = 'connecting';
    this.retryNow();
  }

  async #connect(): Promise<void> {
    const connection = new AbortController();
    this.#connection = connection;
    this.retryAt = null;
    this.#watchSilence();
    try {
      await followStates((state) => this.#accept(state), connection.signal);
      this.#fail('the server closed the stream', connection);
    } catch (error) {
      const refused = error instanceof ApiError && (error.status === 401 || error.status === 403);
      this.#fail(error instanceof Error ? error.message : String(error), connection, refused);
    }
  }

  #accept(state: State): void {
    this.#attempt = 0;
    this.state = state;
    this.shares = remember(this.shares, state);
    this.spool = followSpool(this.spool, state.totals);
    this.receivedAt = Date.now();
    this.lostSince = null;
    this.problem = null;
    this.phase = 'live';
    this.#watchSilence();
  }

  /** A dead peer leaves the stream open and silent: give up on it and connect anew. */
  #watchSilence(): void {
    clearTimeout(this.#silence);
    const connection = this.#connection;
    this.#silence = setTimeout(() => {
      if (connection) this.#fail(`nothing received for ${SILENCE_MS / 1000} s`, connection);
    }, SILENCE_MS);
  }

  #fail(problem: string, connection: AbortController, refused = false): void {
    if (this.#connection !== connection) return;
    this.stop();
    this.problem = problem;
    if (refused) {
      this.phase = 'token';
      return;
    }
    this.phase = 'lost';
    this.lostSince ??= this.receivedAt ?? Date.now();
    const delay = retryDelay(++this.#attempt);
    this.retryAt = Date.now() + delay;
    this.#retry = setTimeout(() => this.start(), delay);
  }
}
