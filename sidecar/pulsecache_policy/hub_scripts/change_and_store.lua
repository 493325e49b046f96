-- change_and_store: as `change`; and stores the object that the write produced, unless the object's tags, or the
-- dataset, were stamped after the write was sent or are in another write's doubt: then two writes overlapped, and
-- nobody knows which the origin took last.
--   KEYS[3]: object
--   ARGV: epoch | publisher | tags of the change | resolved write or '' | nonce | keep
--         | tags of the object | valid (position when the write was sent) | time to live, ms | payload
--   reply: stamp, id of the entry, 1 if stored else 0
-- Without the flag allow-oom: a Redis that is full refuses before anything is done.
local epoch, publisher, tags, write, nonce, keep = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local object_tags, valid, ttl_ms, payload = ARGV[7], tonumber(ARGV[8]), ARGV[9], ARGV[10]
local refusal = foreign(epoch)
if refusal then
  return refusal
end
local store = usable(cjson.decode(object_tags), valid, doubts_of(publisher)[write])
local stamp = give_position()
stamp_tags(cjson.decode(tags), stamp)
end_doubt(publisher, write)
if store then
  -- Objects first, then the change: whoever hears of it finds it.
  redis.call('HSET', KEYS[3], 'e', epoch, 't', object_tags, 'v', int(valid), 'i', int(stamp), 'p', payload)
  redis.call('PEXPIRE', KEYS[3], ttl_ms)
end
return { stamp, append(epoch, nonce, keep, 'c', stamp, 't', tags, 'r', write), store and 1 or 0 }
