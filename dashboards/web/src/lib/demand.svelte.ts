import type { Demand } from './answers';
import { fetchDemand } from './api';
import type { Model } from './types';

export const WINDOW_SECONDS = 480;

/** Demand and forecasts of one model, loaded again in each forecast step and with each new forecast. */
export class DemandFeed {
  demand = $state.raw<Demand | null>(null);
  problem = $state<string | null>(null);

  #request: AbortController | null = null;

  async load(model: string): Promise<void> {
    this.#request?.abort();
    const request = new AbortController();
    this.#request = request;
    try {
      this.demand = await fetchDemand(model, WINDOW_SECONDS, request.signal);
      this.problem = null;
    } catch (error) {
      if (!request.signal.aborted) this.problem = error instanceof Error ? error.message : String(error);
    }
  }

  stop(): void {
    this.#request?.abort();
  }
}

/** Changes whenever the demand of a model is worth loading again. */
export function loadKey(model: Model, now: string): string {
  const step = Math.floor(Date.parse(now) / 1000 / Math.max(1, model.step_seconds));
  return `${model.name} ${model.forecast?.issued_at ?? ''} ${step}`;
}
