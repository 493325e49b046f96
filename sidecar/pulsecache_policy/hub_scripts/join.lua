#!lua flags=allow-oom
-- join: makes a publisher a member, or raises its coverage; safe to repeat.
--   ARGV: epoch | publisher | coverage
--   reply: position
local epoch, publisher, coverage = ARGV[1], ARGV[2], tonumber(ARGV[3])
local refusal = foreign(epoch)
if refusal then
  return refusal
end
local position = give_position()
if not field('c:' .. publisher) then
  -- As if it had beaten before the last heartbeat: not lost, and not in a hurry to lead.
  redis.call('HSET', HUB, 'l:' .. publisher, int(number('mark') - 1))
end
enter(publisher, math.max(number('c:' .. publisher), math.min(coverage, position)))
return position
