/** How much of a model's traffic predictions steer, and why it is less than it should be. */

import { percent } from './format';
import type { Model } from './types';
import type { Mark } from './words';

/** Above this part all requests are steered, but for rounding. */
const ALL = 0.995;

type Steered = Pick<Model, 'rung' | 'predictive_ratio' | 'fallback' | 'zones'>;

/** Whether predictions steer less than they are meant to. How much a canary is meant to steer is not told: only that it is nothing. */
export function steersLess(model: Steered): boolean {
  return model.fallback !== null || takesOver(model);
}

function takesOver({ rung, predictive_ratio: ratio, fallback }: Steered): boolean {
  return rung === 'enforce' && fallback === null && ratio > 0 && ratio < ALL;
}

export interface SteeringNote {
  mark: Mark;
  text: string;
  /** Whether it is worth telling since when. */
  lasts: boolean;
}

export function steeringNote(model: Steered): SteeringNote | null {
  if (model.fallback !== null) {
    const everywhere = model.zones.length > 0 ? ', the same in all zones' : '';
    return {
      mark: { word: 'Predictions steer nothing', shape: 'triangle', tone: 'warn' },
      text: `${model.fallback}; requests go by capacity shares${everywhere}`,
      lasts: true,
    };
  }
  if (!takesOver(model)) return null;
  return {
    mark: { word: 'Predictions take over', shape: 'half', tone: 'accent' },
    text: `${percent(model.predictive_ratio)} of the requests so far, a tenth more each second; the others go by capacity shares`,
    lasts: false,
  };
}
