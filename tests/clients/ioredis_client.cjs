// Exercises ioredis against the server given as PORT; prints "ok" or fails with the first difference.
"use strict";
const assert = require("node:assert");
const { Redis } = require("ioredis");

async function main() {
  const redis = new Redis({ port: Number(process.argv[2]), host: "127.0.0.1", maxRetriesPerRequest: 1 });
  const at = (name) => `ioredis:${name}`;

  assert.equal(await redis.ping(), "PONG");
  assert.equal(await redis.set(at("a"), "1"), "OK");
  assert.equal(await redis.get(at("a")), "1");
  assert.equal(await redis.get(at("absent")), null);
  assert.equal(await redis.set(at("a"), "2", "EX", 100, "NX"), null);
  const binary = Buffer.alloc(300000, 7);
  await redis.set(at("binary"), binary);
  assert.ok(binary.equals(await redis.getBuffer(at("binary"))));

  const piped = await redis.pipeline().set(at("p"), "x").get(at("p")).incr(at("p")).exec();
  assert.deepEqual(piped.slice(0, 2), [[null, "OK"], [null, "x"]]);
  assert.match(piped[2][0].message, /not an integer/);

  const transaction = await redis.multi().set(at("m"), "1").incr(at("m")).exec();
  assert.deepEqual(transaction, [[null, "OK"], [null, 2]]);

  await redis.mset(Object.fromEntries([...Array(300).keys()].map((n) => [at(`scan:${n}`), n])));
  const found = new Set();
  for await (const keys of redis.scanStream({ match: at("scan:*"), count: 20 })) keys.forEach((key) => found.add(key));
  assert.equal(found.size, 300);

  await redis.quit();
  console.log("ok");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
