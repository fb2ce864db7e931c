export interface ServerEvent {
  event: string;
  data: string;
}

/**
 * Reads server-sent events (HTML standard, section 9.2) from text that arrives in arbitrary pieces.
 *
 * `EventSource` itself cannot send an `Authorization` header, which a server with a token asks for.
 */
export class EventParser {
  #rest = '';
  #event = '';
  #data: string[] = [];

  /** Takes the next piece and returns the events it completes. Comments, ids and retry hints are skipped. */
  push(piece: string): ServerEvent[] {
    const lines = (this.#rest + piece).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? '';
    const events: ServerEvent[] = [];
    for (const line of lines) {
      if (line === '') {
        if (this.#data.length > 0) events.push({ event: this.#event || 'message', data: this.#data.join('\n') });
        this.#event = '';
        this.#data = [];
        continue;
      }
      const colon = line.indexOf(':');
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
      if (field === 'event') this.#event = value;
      if (field === 'data') this.#data.push(value);
    }
    return events;
  }
}
