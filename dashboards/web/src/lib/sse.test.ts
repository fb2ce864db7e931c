import { expect, test } from 'vitest';

import { EventParser } from './sse';

const STREAM = ': hello\n\nevent: state\ndata: {"a":1}\n\nid: 7\r\ndata: one\r\ndata:two\r\n\r\nevent: empty\n\ndata: last\n\n';
const EVENTS = [
  { event: 'state', data: '{"a":1}' },
  { event: 'message', data: 'one\ntwo' },
  { event: 'message', data: 'last' },
];

test('whole text', () => {
  expect(new EventParser().push(STREAM)).toEqual(EVENTS);
});

test('cut at every place', () => {
  for (let size = 1; size < STREAM.length; size++) {
    const parser = new EventParser();
    const events = [];
    for (let at = 0; at < STREAM.length; at += size) events.push(...parser.push(STREAM.slice(at, at + size)));
    expect(events, `pieces of ${size}`).toEqual(EVENTS);
  }
});

test('an unfinished event waits', () => {
  const parser = new EventParser();
  expect(parser.push('data: half')).toEqual([]);
  expect(parser.push('\n')).toEqual([]);
  expect(parser.push('\n')).toEqual([{ event: 'message', data: 'half' }]);
});
