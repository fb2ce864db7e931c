import type { History } from './answers';
import { fetchHistory } from './api';
import { rangeOf, type PastQuery } from './past';

/** The history that was asked for last. */
export class PastFeed {
  history = $state.raw<History | null>(null);
  problem = $state<string | null>(null);

  #request: AbortController | null = null;
  #asked = '';

  /** Loads what ends at `toSeconds`. What is shown stays only while the same is asked for again. */
  async load(query: PastQuery, toSeconds: number): Promise<void> {
    this.#request?.abort();
    const request = new AbortController();
    this.#request = request;
    const asked = JSON.stringify(query);
    if (asked !== this.#asked) {
      this.#asked = asked;
      this.history = null;
      this.problem = null;
    }
    try {
      const from = toSeconds - rangeOf(query.range).seconds;
      const history = await fetchHistory(query.subject, query.metric, [from, toSeconds], request.signal);
      if (request.signal.aborted) return;
      this.history = history;
      this.problem = null;
    } catch (error) {
      if (!request.signal.aborted) this.problem = error instanceof Error ? error.message : String(error);
    }
  }

  stop(): void {
    this.#request?.abort();
  }
}
