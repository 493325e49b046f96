-- put: stores an object unless a change, flush or doubt hits it; never in the place of one that is as young.
--   KEYS[3]: object
--   ARGV: epoch | tags | valid | includes | time to live, ms | payload
--   reply: 1 if it (or one as young) is there now, else 0
-- Without the flag allow-oom: objects are not worth the last memory of a Redis.
local epoch, tags, valid, includes, ttl_ms, payload = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6]
local refusal = foreign(epoch)
if refusal then
  return refusal
end
if not usable(cjson.decode(tags), includes) then
  return 0
end
local there = redis.call('HMGET', KEYS[3], 'e', 't', 'v', 'i')
if there[1] == epoch and tonumber(there[3]) >= valid and usable(cjson.decode(there[2]), tonumber(there[4])) then
  return 1
end
redis.call('HSET', KEYS[3], 'e', epoch, 't', tags, 'v', int(valid), 'i', int(includes), 'p', payload)
redis.call('PEXPIRE', KEYS[3], ttl_ms)
return 1
