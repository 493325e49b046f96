#!lua flags=no-writes
-- get: an object that is usable at this moment.
--   KEYS[3]: object
--   ARGV: epoch
--   reply: counter, then payload, tags, valid where there is one: it contains every change of its tags up to the counter
local refusal = foreign(ARGV[1])
if refusal then
  return refusal
end
local found = redis.call('HMGET', KEYS[3], 'e', 't', 'v', 'i', 'p')
if found[1] ~= ARGV[1] or not usable(cjson.decode(found[2]), tonumber(found[4])) then
  return { number('n') }
end
return { number('n'), found[5], found[2], tonumber(found[3]) }
