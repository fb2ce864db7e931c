import { parseRoute, type Route } from './route';

/** The page that the address names now. */
class Address {
  route = $state.raw<Route>(parseRoute(location.hash));

  constructor() {
    addEventListener('hashchange', () => this.#read());
  }

  /** Changes the address without a step back in the browser's history. */
  replace(hash: string): void {
    history.replaceState(null, '', hash);
    this.#read();
  }

  #read(): void {
    this.route = parseRoute(location.hash);
  }
}

export const address = new Address();
