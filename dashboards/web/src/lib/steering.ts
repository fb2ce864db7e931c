/** How much of a model's traffic predictions steer, and why it is less than it should be. */

import { percent } from './format';
import type { Model } from './types';
import type { Mark } from './words';

/** Above this part all requests are steered, but for rounding. */
const ALL = 0.995;

type Steered = Pick<Model, 'rung' | 'predictive_ratio' | 'fallback' | 'fallback_since' | 'canary' | 'zones'>;

function takesOver({ rung, predictive_ratio: ratio, fallback }: Steered): boolean {
  return rung === 'enforce' && fallback === null && ratio > 0 && ratio < ALL;
}

export interface SteeringNote {
  mark: Mark;
  text: string;
  /** Since when; null where that is not worth telling. */
  since: string | null;
}

/** None of a canary that has stepped back: that has a note of its own. */
export function steeringNote(model: Steered): SteeringNote | null {
  if (model.canary?.stepped_back) return null;
  if (model.fallback !== null) {
    const everywhere = model.zones.length > 0 ? ', the same in all zones' : '';
    return {
      mark: { word: 'Predictions steer nothing', shape: 'triangle', tone: 'warn' },
      text: `${model.fallback}; requests go by capacity shares${everywhere}`,
      since: model.fallback_since,
    };
  }
  if (!takesOver(model)) return null;
  return {
    mark: { word: 'Predictions take over', shape: 'half', tone: 'accent' },
    text: `${percent(model.predictive_ratio)} of the requests so far, a tenth more each second; the others go by capacity shares`,
    since: null,
  };
}
