// Reads arrays with zarrita: a line of JSON in, {"path": folder}, a line out, {"shape", "digests"} or {"error"}.
// The digests are the SHA-256 of each plane of the last two axes, in C order, little endian.
import { createHash } from 'node:crypto';
import { createInterface } from 'node:readline';
import { FileSystemStore } from '@zarrita/storage';
import * as zarr from 'zarrita';

async function read(path) {
  const array = await zarr.open.v3(new FileSystemStore(path), { kind: 'array' });
  const { shape } = array;
  if (shape.includes(0)) return { shape, digests: [] };
  const { data } = await zarr.get(array);
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  const planeBytes = bytes.length / shape.slice(0, -2).reduce((product, size) => product * size, 1);
  const digests = [];
  for (let start = 0; start < bytes.length; start += planeBytes) {
    digests.push(createHash('sha256').update(bytes.subarray(start, start + planeBytes)).digest('hex'));
  }
  return { shape, digests };
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = await read(JSON.parse(line).path);
  } catch (error) {
    answer = { error: `${error?.name}: ${error?.message ?? error}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
